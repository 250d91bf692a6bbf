"""The stream in memory provides the interface of the log."""

from __future__ import annotations

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.unit.log.memory import MemoryStream
from tracker.log.interfaces import IRecordReader


def test_memory_reader_provides_its_interface() -> None:
    verifyObject(IRecordReader, MemoryStream(Clock(), "stream", 10).reader("one"))
