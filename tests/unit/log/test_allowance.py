"""Number of entries that a read requests to stay within its limit of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.log.allowance import OVERHEAD, STEPS, Allowance, size_of


def read(allowance: Allowance, stream: str, lengths: list[int]) -> list[int]:
    """Read entries of these lengths until a limit is reached; return the lengths that were read."""
    taken: list[int] = []
    while stream in allowance.open() and len(taken) < len(lengths):
        step = lengths[len(taken) :][: allowance.step([stream])]
        allowance.take(stream, [[b"x" * (length - OVERHEAD)] for length in step])
        taken += step
    return taken


@given(st.lists(st.integers(OVERHEAD, 640), max_size=400))
def test_read_exceeds_its_bytes_by_less_than_one_entry_of_usual_length(
    lengths: list[int],
) -> None:
    size = 640 * STEPS
    taken = read(Allowance(["s"], 1000, size), "s", lengths)
    assert sum(taken[:-1]) < size
    assert len(taken) == len(lengths) or sum(taken) >= size


@given(st.lists(st.integers(OVERHEAD, 100_000), max_size=400))
def test_read_exceeds_its_bytes_by_at_most_one_step(lengths: list[int]) -> None:
    taken = read(Allowance(["s"], 1000, 64_000), "s", lengths)
    assert sum(taken[: -STEPS or None]) < 64_000
    assert len(taken) == len(lengths) or sum(taken) >= 64_000


def test_entry_that_exceeds_the_allowance_is_read_alone() -> None:
    assert read(Allowance(["s"], 10, 1), "s", [1000]) == [1000]


def test_step_after_a_long_entry_requests_one_entry() -> None:
    allowance = Allowance(["s"], 1000, 64_000)
    allowance.take("s", [[b"x" * 40_000]])
    assert allowance.step(["s"]) == 1


def test_next_read_starts_with_the_known_length_of_entries() -> None:
    lengths: dict[str, float] = {}
    Allowance(["s"], 1000, 64_000, lengths).take("s", [[b"x" * 40_000], [b""]])
    assert Allowance(["s"], 1000, 64_000, lengths).step(["s"]) == 3
    assert Allowance(["s"], 1000, 64_000).step(["s"]) == STEPS


def test_number_of_entries_is_limited() -> None:
    allowance = Allowance(["s"], 100, 64_000)
    assert read(allowance, "s", [50] * 200) == [50] * 100
    assert allowance.open() == []


def test_stream_of_long_entries_leaves_its_share_to_another_stream() -> None:
    allowance = Allowance(["long", "short"], 1000, 100_000)
    assert len(read(allowance, "long", [40_000] * 100)) <= STEPS
    assert allowance.open() == ["short"]
    assert read(allowance, "short", [100] * 400) == [100] * 400


def test_deleted_entries_are_counted() -> None:
    allowance = Allowance(["s"], 10, 64_000)
    allowance.take("s", [None] * 10)
    assert allowance.open() == []


@pytest.mark.parametrize(
    ("contents", "size"),
    [([], 0), ([None], 0), ([[b"", b""]], 2 * OVERHEAD), ([[b"ab", b"c"]] * 2, 4 * OVERHEAD + 6)],
)
def test_empty_names_and_values_count_with_their_overhead(
    contents: list[list[bytes] | None], size: int
) -> None:
    assert size_of(contents) == size
