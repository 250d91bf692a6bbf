"""Damaged and hostile frames in the HEX encoding; ``make test-fuzz`` runs many more."""

from __future__ import annotations

import os
import random
import time
from typing import Final

import pytest

from tests.unit.vendors.queclink.golden_hex import HEX_GOLDEN
from tests.unit.vendors.queclink.hexencoding import seal
from tests.unit.vendors.queclink.test_hex_frames import LIMIT
from tracker.outcomes import Decoded, Incomplete, Rejected
from tracker.vendors.queclink.framing import decode_frame
from tracker.vendors.queclink.hexframes import HEX_STARTS, HexFrame
from tracker.vendors.queclink.hexrecords import hex_records

#: Number of damaged frames.
INPUTS: Final = int(os.environ.get("FUZZ_INPUTS", "5000"))


def damaged(source: random.Random) -> bytes:
    """Return a damaged frame; half of them have a correct CRC again."""
    data = bytearray(source.choice(HEX_GOLDEN).data)
    for _ in range(source.randint(1, 4)):
        where = source.randrange(4, len(data))
        action = source.randrange(4)
        if action == 0:
            data[where] = source.randrange(256)
        elif action == 1:
            del data[where : where + source.randint(1, 9)]
        elif action == 2:
            data[where:where] = source.randbytes(source.randint(1, 40))
        else:
            data[where:] = source.randbytes(len(data) - where)
        if len(data) < 16:
            break
    header = bytes(data[:4]) if source.random() < 0.9 else source.choice(HEX_STARTS)
    if source.random() < 0.5:
        return header + bytes(data[4:])
    return with_length(header, bytearray(data[4:-4]))


def with_length(header: bytes, content: bytearray) -> bytes:
    """Return a frame with a correct length and CRC."""
    at, size = {b"+ACK": (2, 1), b"+HBD": (1, 1)}.get(header, (5, 2))
    if header in (b"+INF", b"+BNF"):
        at = 3
    elif header in (b"+CRD", b"+BRD", b"+LGN"):
        at = 2
    content[at : at + size] = (len(content) + 8).to_bytes(4)[-size:]
    return seal(header, bytes(content))


def test_damaged_hex_frames_are_decoded_or_rejected() -> None:
    source = random.Random(20)
    outcomes = {Decoded: 0, Rejected: 0, Incomplete: 0}
    for _ in range(INPUTS):
        data = damaged(source)
        outcome = decode_frame(data, LIMIT)
        assert type(outcome) in outcomes
        outcomes[type(outcome)] += 1
        if isinstance(outcome, Rejected):
            assert 0 < outcome.used <= len(data)
            assert outcome.reason.isprintable()
        if not isinstance(outcome, Decoded) or not isinstance(outcome.value, HexFrame):
            continue
        frame = outcome.value
        read = hex_records(frame, "X", 1.0, 0, max_records=255, message_bytes=8192)
        assert len(read.entries) == 0 if frame.is_heartbeat else read.entries
        for entry in read.entries:
            assert '"latitude":null' not in entry.payload or frame.message_count == 1
    assert min(outcomes.values()) > INPUTS // 50


@pytest.mark.parametrize("mask", [0xFFFFFFBF, 0x03FEFFBF, 0x00FE1FBF, 0x020000B8])
@pytest.mark.parametrize("pattern", [b"\0", b"\1", b"\0\0\x07\xe8\1\1\0\0\0", b"\xff"])
def test_work_for_a_hostile_frame_is_bounded(mask: int, pattern: bytes) -> None:
    head = bytes(2) + b"\x45" + bytes(4) + bytes((86, 50, 84, 3, 0, 3, 67, 5))
    versions = head if mask >> 8 & 1 else head[:2] + head[-8:]
    body = (pattern * LIMIT)[: LIMIT - 100]
    content = b"\7" + mask.to_bytes(4) + versions + body
    data = with_length(b"+RSP", bytearray(content))
    before = time.process_time()
    outcome = decode_frame(data, LIMIT)
    assert time.process_time() - before < 0.1
    assert isinstance(outcome, Decoded)
