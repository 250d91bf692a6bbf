"""The first arrival, which an entry keeps when it is moved."""

from __future__ import annotations

import json

import pytest

from tracker.extra import MAX_EXTRA
from tracker.log.redis.moving import arrival, with_arrival

ARRIVED = "2026-11-22T10:00:00.000Z"
EARLIER = "2026-11-21T10:00:00.000Z"
LATER = "2080-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("ids", "time"),
    [
        (["1795341600000-0"], "2026-11-22T10:00:00.000Z"),
        (["1795341600000-0", "1795341600001-0"], "2026-11-22T10:00:00.000Z"),
        (["18446744073709551615-0", "1795341600000-0"], "2026-11-22T10:00:00.000Z"),
        (["18446744073709551615-18446744073709551615"], "9999-12-31T23:59:59.999Z"),
        (["", "1-2"], "1970-01-01T00:00:00.001Z"),
        (["9" * 5000 + "-0", "x", "1", "-1-0"], None),
    ],
)
def test_arrival_is_the_earliest_time_of_valid_ids(ids: list[str], time: str | None) -> None:
    assert arrival(*ids) == time


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], {"arrived": ARRIVED}),
        ([b""], {"arrived": ARRIVED}),
        ([b" { } "], {"arrived": ARRIVED}),
        ([b'{"widths":{"16":[]},"serial":18446744073709551615}'],
         {"widths": {"16": []}, "serial": 18446744073709551615, "arrived": ARRIVED}),
        ([b'{"arrived":"%s"}' % EARLIER.encode()], {"arrived": EARLIER}),
        ([b'{"arrived":"%s"}' % LATER.encode()], {"arrived": ARRIVED}),
        ([b'{"fix":true,"fix":false}'], {"fix": False, "arrived": ARRIVED}),
        ([b"not read", b'{"fix":false}'], {"fix": False, "arrived": ARRIVED}),
    ],
)  # fmt: skip
def test_earliest_arrival_is_added_to_extra(before: list[bytes], after: object) -> None:
    content = [b"codec", b"8", *(part for text in before for part in (b"extra", text))]
    moved = with_arrival(content, ARRIVED)
    assert json.loads(moved[-1]) == after
    assert list(moved[:-1]) == [*content, b"extra"][: len(moved) - 1]
    assert with_arrival(moved, LATER) == moved


@pytest.mark.parametrize(
    "extra",
    [
        b"no JSON",
        b"[]",
        b"\xff",
        b'{"arrived":1}',
        b'{"fix":"yes"}',
        b'{"widths":7}',
        b"[" * 100_000,
        b'{"serial":NaN}',
        b'{"kind":"\\ud800"}',
        b'{"kind":"%s"}' % (b"x" * MAX_EXTRA),
        b'{"kind":"%s"}' % (b"x" * (MAX_EXTRA - 20)),
    ],
    ids=str.split("text array bytes arrived fix widths deep nan surrogate long nearly-too-long"),
)
def test_extra_that_is_malformed_or_too_long_to_extend_is_kept(extra: bytes) -> None:
    content = [b"codec", b"8", b"extra", extra, b"payload", b"{}"]
    assert with_arrival(content, ARRIVED) == content


def test_content_is_unchanged_if_the_arrival_is_unknown() -> None:
    assert with_arrival([b"codec", b"8"], None) == [b"codec", b"8"]
