"""Plausibility of the routes of simulated vehicles."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest

from tracker.simulator.track import Track
from tracker.vendors.simulation import Fix

HOME = (41.3275, 19.8187)
EARTH_RADIUS = 6_371_008.8  # metres
HOUR = 3600

each_seed = pytest.mark.parametrize("seed", range(6))


def metres(latitude: float, longitude: float, fix: Fix) -> float:
    """Return the great-circle distance of a fix from coordinates in degrees (haversine)."""
    here, there = math.radians(latitude), math.radians(fix.latitude)
    sines = (
        math.sin((there - here) / 2) ** 2
        + math.cos(here)
        * math.cos(there)
        * math.sin(math.radians(fix.longitude - longitude) / 2) ** 2
    )
    return 2 * EARTH_RADIUS * math.asin(math.sqrt(sines))


def distance(one: Fix, other: Fix) -> float:
    return metres(one.latitude, one.longitude, other)


def bearing(one: Fix, other: Fix) -> float:
    """Return degrees clockwise from north; valid for distances of some metres only."""
    north = other.latitude - one.latitude
    east = (other.longitude - one.longitude) * math.cos(math.radians(one.latitude))
    return math.degrees(math.atan2(east, north)) % 360


def drive(seed: int, seconds: int, radius: float = 5000.0) -> list[Fix]:
    """Return one fix per second."""
    track = Track(Random(seed), HOME, radius)
    return [track.advance(0), *(track.advance(1) for _ in range(seconds))]


@each_seed
def test_distance_between_two_fixes_agrees_with_the_speed(seed: int) -> None:
    for before, after in pairwise(drive(seed, HOUR)):
        covered = distance(before, after)
        if after.speed:
            # The speed is rounded to 1 km/h, which is 0.14 m in a second.
            assert covered == pytest.approx(after.speed / 3.6, abs=0.2)
        elif not before.speed:
            assert covered == 0
        else:
            assert covered < 15  # the last metres before a stop


@each_seed
def test_angle_is_the_direction_of_travel(seed: int) -> None:
    moving = [
        abs((bearing(before, after) - after.angle + 180) % 360 - 180)
        for before, after in pairwise(drive(seed, HOUR))
        if after.speed > 10
    ]
    # At a junction the angle is already that of the new street.
    straight = [difference for difference in moving if difference < 2]
    assert len(straight) > 0.9 * len(moving)
    assert len(straight) < len(moving)  # it does turn


@each_seed
def test_speed_and_acceleration_are_those_of_a_car_in_a_town(seed: int) -> None:
    fixes = drive(seed, HOUR)
    assert all(0 <= fix.speed <= 90 for fix in fixes)
    assert max(fix.speed for fix in fixes) > 40
    for before, after in pairwise(fixes):
        assert after.speed - before.speed <= 8  # km/h in a second
        if after.speed:
            assert before.speed - after.speed <= 14


@each_seed
def test_vehicle_slows_down_before_it_turns(seed: int) -> None:
    turns = [
        before.speed
        for before, after in pairwise(drive(seed, HOUR))
        if abs((after.angle - before.angle + 180) % 360 - 180) > 45
    ]
    assert len(turns) > 20
    assert max(turns) <= 50
    assert sum(turns) / len(turns) < 25


@each_seed
def test_vehicle_stands_between_2_and_50_percent_of_the_time(seed: int) -> None:
    fixes = drive(seed, HOUR)
    standing = sum(fix.speed == 0 for fix in fixes) / len(fixes)
    assert 0.02 < standing < 0.5


@each_seed
@pytest.mark.parametrize("radius", [300.0, 5000.0])
def test_vehicle_stays_near_its_radius(seed: int, radius: float) -> None:
    track = Track(Random(seed), HOME, radius)
    # The vehicle turns only at the end of a street, of up to 600 m; allow for two streets.
    furthest = max(metres(*HOME, track.advance(5)) for _ in range(4 * HOUR // 5))
    assert furthest < radius + 1200


@each_seed
def test_vehicle_moves_more_than_500_metres_in_an_hour(seed: int) -> None:
    fixes = drive(seed, HOUR)
    assert max(distance(fixes[0], fix) for fix in fixes) > 500


@each_seed
def test_fix_is_within_the_ranges_of_a_record(seed: int) -> None:
    for fix in drive(seed, HOUR):
        assert 0 <= fix.angle < 360
        assert 0 <= fix.altitude < 2000
        assert fix.latitude == round(fix.latitude, 7)
        assert fix.longitude == round(fix.longitude, 7)


def test_same_seed_gives_the_same_drive() -> None:
    assert drive(1, 600) == drive(1, 600)
    assert drive(1, 600) != drive(2, 600)


@pytest.mark.parametrize("stride", [2, 60, 600])
def test_route_does_not_depend_on_the_interval_between_fixes(stride: int) -> None:
    track = Track(Random(3), HOME)
    fixes = [track.advance(0), *(track.advance(stride) for _ in range(600 // stride))]
    assert fixes == drive(3, 600)[::stride]


def test_vehicle_does_not_move_in_zero_seconds() -> None:
    track = Track(Random(4), HOME)
    fix = track.advance(120)
    assert track.advance(0) == fix


def test_speed_does_not_depend_on_fractions_of_a_second() -> None:
    track = Track(Random(5), HOME)
    before = track.advance(0)
    for _ in range(4 * HOUR):
        after = track.advance(0.25)
        assert distance(before, after) <= 90 / 3.6 / 4 + 0.05
        before = after


def test_vehicle_starts_at_rest_near_home() -> None:
    for seed in range(50):
        fix = Track(Random(seed), HOME).advance(0)
        assert fix.speed == 0
        assert metres(*HOME, fix) < 5000
