"""The route of a simulated vehicle: streets, junctions, traffic lights."""

from __future__ import annotations

import math
from random import Random
from typing import Final

from tracker.vendors.simulation import Fix

#: Metres in a degree of latitude.
_DEGREE: Final = 111_320.0
#: m/s² of ordinary driving.
_ACCELERATION: Final = 1.8
_BRAKING: Final = 2.5


class Track:
    """A drive through a town around ``home``.

    Streets are up to 600 m long and bend a little. At the end of a street the vehicle
    slows down, turns, and sometimes waits. If it is further than ``radius`` from home,
    it turns towards home.

    :param home: latitude and longitude in degrees.
    :param radius: metres.
    """

    def __init__(self, random: Random, home: tuple[float, float], radius: float = 5000.0) -> None:
        self._random = random
        self._home = home
        self._radius = radius
        self._latitude = home[0] + random.uniform(-1, 1) * radius / 2 / _DEGREE
        self._longitude = home[1] + random.uniform(-1, 1) * radius / 2 / self._longitude_degree
        self._heading = random.uniform(0, 360)
        self._speed = 0.0  # m/s
        self._altitude = random.uniform(20, 250)
        self._wait = random.uniform(0, 10)  # seconds still to stand
        self._new_street()

    def advance(self, seconds: float) -> Fix:
        """Drive for ``seconds``, and return the new fix."""
        while seconds > 0:
            step = min(seconds, 1.0)
            seconds -= step
            self._step(step)
        return Fix(
            round(self._latitude, 7),
            round(self._longitude, 7),
            round(self._altitude),
            round(self._heading) % 360,
            round(self._speed * 3.6),
        )

    def _step(self, seconds: float) -> None:
        if self._wait > 0:
            self._wait -= seconds
            return
        braking_distance = self._speed**2 / (2 * _BRAKING)
        if self._left < braking_distance + 5:
            self._speed = max(3.0, self._speed - _BRAKING * seconds)
        else:
            self._speed = min(self._limit, self._speed + _ACCELERATION * seconds)
        self._heading = (self._heading + self._bend * seconds) % 360
        distance = self._speed * seconds
        self._left -= distance
        heading = math.radians(self._heading)
        self._latitude += distance * math.cos(heading) / _DEGREE
        self._longitude += distance * math.sin(heading) / self._longitude_degree
        self._altitude = max(0.0, self._altitude + self._slope * distance)
        if self._left <= 0:
            self._turn()
            self._new_street()

    def _turn(self) -> None:
        north = (self._home[0] - self._latitude) * _DEGREE
        east = (self._home[1] - self._longitude) * self._longitude_degree
        if math.hypot(north, east) > self._radius:
            self._heading = math.degrees(math.atan2(east, north))
        else:
            self._heading += self._random.choice((-90, 0, 0, 90)) + self._random.gauss(0, 5)
        self._heading %= 360
        if self._random.random() < 0.25:
            self._speed = 0.0
            self._wait = self._random.uniform(5, 40)

    def _new_street(self) -> None:
        self._left = self._random.uniform(80, 600)
        self._limit = self._random.choice((30, 50, 50, 50, 70, 90)) / 3.6
        self._bend = self._random.gauss(0, 0.4)  # degrees a second
        self._slope = self._random.gauss(0, 0.01)

    @property
    def _longitude_degree(self) -> float:
        return _DEGREE * math.cos(math.radians(self._home[0]))
