"""Repeated ids that are told of whatever else a record holds."""

from __future__ import annotations

import attrs

from tests.unit.vendors.teltonika.test_positions_kinds import RECORD, TWICE, told
from tracker.position import MAX_TIMESTAMP_MS
from tracker.vendors.teltonika.avl import CODEC_8, Packet
from tracker.vendors.teltonika.codec7 import Codec7Packet, Codec7Record


def test_a_repeated_id_is_told_of_after_the_year_9999_too() -> None:
    late = attrs.evolve(RECORD, timestamp=MAX_TIMESTAMP_MS + 1, elements=TWICE)
    assert told(Packet(CODEC_8, (late,))) == 1


def test_a_repeated_id_of_codec_7_is_told_of() -> None:
    record = Codec7Record(1_167_609_600_000, 0, elements=TWICE)
    assert told(Codec7Packet((record,))) == 1


def test_a_repeated_id_of_codec_7_is_told_of_beside_the_network() -> None:
    record = Codec7Record(1_167_609_600_000, 0, cell=(1, 2), gsm_signal=3, elements=TWICE)
    assert told(Codec7Packet((record,))) == 1
