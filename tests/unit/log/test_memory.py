"""The stream in memory keeps to the interface that it stands for."""

from __future__ import annotations

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.unit.log.memory import MemoryStream
from tracker.log.interfaces import IRecordReader


def test_its_reader_provides_the_interface() -> None:
    verifyObject(IRecordReader, MemoryStream(Clock(), "stream", 10).reader("one"))
