"""Reports of repeated ids in records with other attributes."""

from __future__ import annotations

import attrs

from tests.unit.vendors.teltonika.test_positions_kinds import RECORD, TWICE, repetitions
from tracker.position import MAX_TIMESTAMP_MS
from tracker.vendors.teltonika.avl import CODEC_8, Packet
from tracker.vendors.teltonika.codec7 import Codec7Packet, Codec7Record


def test_repeated_id_is_reported_after_the_year_9999() -> None:
    late = attrs.evolve(RECORD, timestamp=MAX_TIMESTAMP_MS + 1, elements=TWICE)
    assert repetitions(Packet(CODEC_8, (late,))) == 1


def test_repeated_id_of_codec_7_is_reported() -> None:
    record = Codec7Record(1_167_609_600_000, 0, elements=TWICE)
    assert repetitions(Codec7Packet((record,))) == 1


def test_repeated_id_of_codec_7_is_reported_beside_network_fields() -> None:
    record = Codec7Record(1_167_609_600_000, 0, cell=(1, 2), gsm_signal=3, elements=TWICE)
    assert repetitions(Codec7Packet((record,))) == 1
