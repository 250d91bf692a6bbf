"""Names that a repair gives to the attributes of stored rows."""

from __future__ import annotations

import json

import pytest

from tracker.extra import NO_EXTRA
from tracker.processing.naming import namings_of
from tracker.storage.repair import Names, Row


@pytest.mark.parametrize(("codec", "names"), [("8E", ["Ignition"]), ("7", [])])
def test_repair_names_attributes_by_the_codec_of_the_row(codec: str, names: list[str]) -> None:
    row = Row(
        "1",
        "2026-11-22T10:00:00.000Z",
        b"",
        "2026-11-22T10:00:00.000Z",
        None,
        vendor="teltonika",
        codec=codec,
        attributes='{"239": 1}',
    )
    named = Names(namings_of({}, None)).of(row, NO_EXTRA)
    assert named is not None
    assert list(json.loads(named)) == names
