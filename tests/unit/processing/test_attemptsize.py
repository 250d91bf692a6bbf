"""Size of an attempt of the sink, which adapts to timeouts."""

from __future__ import annotations

from tracker.processing.attemptsize import AttemptSize


def test_timeouts_halve_the_size_down_to_one() -> None:
    size = AttemptSize(4000)
    limits: list[int] = []
    while not limits or limits[-1] > 1:
        size.timed_out(size.limit, 30)
        limits.append(size.limit)
    assert limits == [2000, 1000, 500, 250, 125, 62, 31, 15, 7, 3, 1]
    size.timed_out(1, 30)
    assert size.limit == 1


def test_timeout_of_a_small_attempt_sets_the_limit_to_half_of_its_size() -> None:
    size = AttemptSize(4000)
    size.timed_out(85, 30)
    assert size.limit == 42


def test_quick_successes_double_the_size_up_to_the_full_one() -> None:
    size = AttemptSize(100)
    size.timed_out(4, 30)
    limits = []
    for _ in range(8):
        size.succeeded(1)
        limits.append(size.limit)
    assert limits == [4, 8, 16, 32, 64, 100, 100, 100]


def test_size_is_doubled_after_several_slow_successes() -> None:
    size = AttemptSize(100)
    size.timed_out(8, 30)
    for _ in range(7):
        size.succeeded(20)
        assert size.limit == 4
    size.succeeded(20)  # the number of positions may not be the reason
    assert size.limit == 8
