"""Selection of sinks by URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeSink
from tracker.interfaces import IPositionSink
from tracker.storage.jsonlines.writer import JSONLinesSink
from tracker.storage.postgresql.writer import PostgreSQLSink
from tracker.storage.sinks import make_sink
from tracker.storage.sqlite.writer import SQLiteSink


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite:{}/positions.sqlite", SQLiteSink),
        ("jsonlines:{}/positions.jsonl", JSONLinesSink),
        ("postgresql://127.0.0.1/tracker", PostgreSQLSink),
        ("postgres://127.0.0.1/tracker", PostgreSQLSink),
    ],
)
def test_url_selects_the_kind_of_sink(url: str, kind: type[Any], tmp_path: Path) -> None:
    sink = make_sink(cast("Any", Clock()), url.format(tmp_path))
    assert type(sink) is kind
    verifyObject(IPositionSink, sink)


def test_fake_sink_provides_its_interface() -> None:
    verifyObject(IPositionSink, FakeSink())
