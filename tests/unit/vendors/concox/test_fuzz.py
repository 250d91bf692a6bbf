"""Fuzzing of the protocol with damaged frames; ``FUZZ_INPUTS`` is their number.

Real frames are damaged in many ways. Half of them get a correct checksum, which lets them reach
the readers of contents. The damage is random, but the same in each run.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Final

from tests.unit.vendors.concox.frames import frame_of
from tests.unit.vendors.concox.golden import GOLDEN, IMEI, LOGIN, POSITION_22
from tests.unit.vendors.talk import Talk
from tracker.extra import read_extra
from tracker.limits import Limits
from tracker.outcomes import Decoded, Incomplete, Rejected
from tracker.position import Entry, Position
from tracker.vendors.concox.content import HEARTBEATS, READERS
from tracker.vendors.concox.dialect import MAX_GARBAGE_BYTES
from tracker.vendors.concox.frames import Frame, decode_frame, encode_frame
from tracker.vendors.concox.vendor import Concox

INPUTS: Final = int(os.environ.get("FUZZ_INPUTS", "5000"))
#: Small limits, which short inputs can exceed.
LIMITS: Final = Limits(frame_bytes=400, buffer_bytes=600, message_bytes=64)
MAX_CHUNK_BYTES: Final = 300
INPUTS_PER_CONNECTION: Final = 20

FRAMES: Final = [frame_of(golden) for golden in GOLDEN]
NUMBERS: Final = sorted({number for readers in READERS.values() for number in readers})


class Mutations:
    """Random damage to bytes, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def damaged(self, data: bytes) -> bytes:
        """Return ``data`` with one to three kinds of damage."""
        rng, changed = self.random, bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            start = rng.randrange(len(changed) + 1)
            way = rng.randrange(6)
            if way == 0:
                del changed[start:]
            elif way == 1:
                del changed[start : start + rng.randrange(1, 9)]
            elif way == 2:
                changed[start:start] = changed[start : start + rng.randrange(1, 40)]
            elif way == 3:
                changed[start:start] = rng.randbytes(rng.randrange(1, 9))
            elif changed:
                value = rng.choice((0, 1, 2, 0x0D, 0x78, 0x79, 0x7F, 0x80, 0xFF))
                changed[min(start, len(changed) - 1)] = value
        return bytes(changed)

    def of_a_stream(self) -> bytes:
        """Return one input of a connection."""
        rng = self.random
        frame = rng.choice(FRAMES)
        choice = rng.random()
        if choice < 0.2:
            return encode_frame(frame)
        if choice < 0.7:  # a correct envelope around a damaged content
            content = self.damaged(frame.content)[:245]
            number = frame.number if choice < 0.5 else rng.choice(NUMBERS)
            extended = frame.extended if choice < 0.6 else not frame.extended
            return encode_frame(Frame(number, content, rng.randrange(0x10000), extended))
        if choice < 0.95:
            return self.damaged(encode_frame(frame))
        return rng.randbytes(rng.randrange(1, 60))

    def chunks(self, data: bytes) -> list[bytes]:
        """Return ``data`` in chunks of random size, like a network."""
        size = self.random.choice((1, 7, 50, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES))
        return [data[start : start + size] for start in range(0, len(data), size)]


def check_entry(entry: Entry) -> None:
    """Check that an entry is one that the processor can read."""
    position = Position.from_payload(entry.payload)
    extra = read_extra(entry.extra)
    assert (entry.device_id, entry.codec) == (IMEI, "gt06")
    assert (position.device_id, position.timestamp) == (entry.device_id, entry.ts)
    if position.is_message:
        assert extra.fix is None
    else:
        assert extra.fix is not None
        assert not extra.fix or position.has_fix(True) or not position.latitude


def answers_in(data: bytes) -> list[int]:
    """Return the numbers of the frames that the device has received."""
    numbers = []
    while data:
        outcome = decode_frame(data)
        assert isinstance(outcome, Decoded)
        numbers.append(outcome.value.number)
        data = data[outcome.used :]
    return numbers


def feed(talk: Talk, mutations: Mutations, data: bytes, counts: Counter[str]) -> None:
    """Send an input, confirm its entries, and check the answers."""
    for chunk in mutations.chunks(data):
        if talk.closed:
            return
        talk.send(chunk)
        assert talk.unread <= LIMITS.frame_bytes + LIMITS.buffer_bytes + MAX_CHUNK_BYTES
    answered = answers_in(talk.received())
    assert not HEARTBEATS & set(answered), "nothing is appended yet"
    while pending := [one for one in talk.gateway.published if not one[1].called]:
        for entries, appended in pending:
            for entry in entries:
                check_entry(entry)
            counts["entries"] += len(entries)
            appended.callback(None)
        talk.clock.advance(0)
        answered += answers_in(talk.received())
    assert not {0x12, 0x22, 0x80} & set(answered)
    counts["answers"] += len(answered)


def test_fuzzed_connections_give_valid_entries_and_true_answers() -> None:
    mutations, counts = Mutations(20), Counter[str]()
    for _ in range(INPUTS // INPUTS_PER_CONNECTION):
        talk = Talk(Concox().buildFactory, LIMITS)
        talk.send(LOGIN.data)
        talk.received()
        for _ in range(INPUTS_PER_CONNECTION):
            feed(talk, mutations, mutations.of_a_stream(), counts)
            talk.clock.advance(0.5)
            answers_in(talk.received())
            talk.gateway.published.clear()
        counts["closed"] += talk.closed
        counts["rejected"] += len(talk.gateway.kinds)
    assert counts["entries"] > INPUTS // 4
    assert counts["rejected"] > INPUTS // 10
    assert 0 < counts["closed"] < INPUTS // INPUTS_PER_CONNECTION


def test_fuzzed_bytes_hide_no_later_frame() -> None:
    mutations = Mutations(21)
    for _ in range(INPUTS // 4):
        # A damaged length may claim the frames that follow, up to the longest frame.
        rest = bytearray(mutations.of_a_stream() + 12 * POSITION_22.data)
        skipped = last = 0
        while rest:
            outcome = decode_frame(rest, 400)
            if isinstance(outcome, Incomplete):
                break
            last = outcome.value.number if isinstance(outcome, Decoded) else 0
            skipped += outcome.used if isinstance(outcome, Rejected) else 0
            del rest[: outcome.used]
        assert last == POSITION_22.number
        assert skipped <= MAX_GARBAGE_BYTES
        assert len(rest) < len(POSITION_22.data)
