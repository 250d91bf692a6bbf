"""Where simulated vehicles drive: a route that a map and a speedometer would believe."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest

from tracker.simulator.track import Fix, Track

HOME = (41.3275, 19.8187)
EARTH_RADIUS = 6_371_008.8  # metres
HOUR = 3600

each_seed = pytest.mark.parametrize("seed", range(6))


def metres(latitude: float, longitude: float, fix: Fix) -> float:
    """Great-circle distance of a fix from a place (haversine)."""
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
    """Degrees clockwise from north, over a distance so short that the earth is flat."""
    north = other.latitude - one.latitude
    east = (other.longitude - one.longitude) * math.cos(math.radians(one.latitude))
    return math.degrees(math.atan2(east, north)) % 360


def drive(seed: int, seconds: int, radius: float = 5000.0) -> list[Fix]:
    """A fix for each second."""
    track = Track(Random(seed), HOME, radius)
    return [track.advance(0), *(track.advance(1) for _ in range(seconds))]


@each_seed
def test_the_distance_between_two_fixes_agrees_with_the_speed(seed: int) -> None:
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
def test_the_angle_is_where_the_vehicle_goes(seed: int) -> None:
    moving = [
        abs((bearing(before, after) - after.angle + 180) % 360 - 180)
        for before, after in pairwise(drive(seed, HOUR))
        if after.speed > 10
    ]
    # At a junction the angle is that of the new street already.
    straight = [difference for difference in moving if difference < 2]
    assert len(straight) > 0.9 * len(moving)
    assert len(straight) < len(moving)  # it does turn


@each_seed
def test_speed_is_that_of_a_car_in_a_town(seed: int) -> None:
    fixes = drive(seed, HOUR)
    assert all(0 <= fix.speed <= 90 for fix in fixes)
    assert max(fix.speed for fix in fixes) > 40
    for before, after in pairwise(fixes):
        assert after.speed - before.speed <= 8  # km/h in a second
        if after.speed:
            assert before.speed - after.speed <= 14


@each_seed
def test_the_vehicle_slows_down_before_it_turns(seed: int) -> None:
    turns = [
        before.speed
        for before, after in pairwise(drive(seed, HOUR))
        if abs((after.angle - before.angle + 180) % 360 - 180) > 45
    ]
    assert len(turns) > 20
    assert max(turns) <= 50
    assert sum(turns) / len(turns) < 25


@each_seed
def test_the_vehicle_stands_at_times_and_drives_mostly(seed: int) -> None:
    fixes = drive(seed, HOUR)
    standing = sum(fix.speed == 0 for fix in fixes) / len(fixes)
    assert 0.02 < standing < 0.5


@each_seed
@pytest.mark.parametrize("radius", [300.0, 5000.0])
def test_the_vehicle_comes_back_when_it_has_gone_too_far(seed: int, radius: float) -> None:
    track = Track(Random(seed), HOME, radius)
    # It turns at the end of a street only: up to 600 m there, and as many to turn round.
    furthest = max(metres(*HOME, track.advance(5)) for _ in range(4 * HOUR // 5))
    assert furthest < radius + 1200


@each_seed
def test_the_vehicle_gets_about(seed: int) -> None:
    fixes = drive(seed, HOUR)
    assert max(distance(fixes[0], fix) for fix in fixes) > 500


@each_seed
def test_a_fix_holds_what_a_record_can_carry(seed: int) -> None:
    for fix in drive(seed, HOUR):
        assert 0 <= fix.angle < 360
        assert 0 <= fix.altitude < 2000
        assert fix.latitude == round(fix.latitude, 7)
        assert fix.longitude == round(fix.longitude, 7)


def test_the_same_seed_gives_the_same_drive() -> None:
    assert drive(1, 600) == drive(1, 600)
    assert drive(1, 600) != drive(2, 600)


@pytest.mark.parametrize("stride", [2, 60, 600])
def test_the_route_does_not_depend_on_how_often_one_looks(stride: int) -> None:
    track = Track(Random(3), HOME)
    seldom = [track.advance(0), *(track.advance(stride) for _ in range(600 // stride))]
    assert seldom == drive(3, 600)[::stride]


def test_no_time_is_no_way() -> None:
    track = Track(Random(4), HOME)
    fix = track.advance(120)
    assert track.advance(0) == fix


def test_fractions_of_a_second_add_up_to_the_same_speed() -> None:
    track = Track(Random(5), HOME)
    before = track.advance(0)
    for _ in range(4 * HOUR):
        after = track.advance(0.25)
        assert distance(before, after) <= 90 / 3.6 / 4 + 0.05
        before = after


def test_the_vehicle_starts_standing_near_home() -> None:
    for seed in range(50):
        fix = Track(Random(seed), HOME).advance(0)
        assert fix.speed == 0
        assert metres(*HOME, fix) < 5000
