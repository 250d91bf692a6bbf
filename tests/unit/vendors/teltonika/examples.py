"""Frames of every kind: captured examples, and strategies for properties."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import strategies as st

from tests.unit.vendors.teltonika import golden_7
from tests.unit.vendors.teltonika.golden import GOLDEN, LOGIN
from tests.unit.vendors.teltonika.golden_16 import ON_CHANGE
from tests.unit.vendors.teltonika.golden_datagrams import (
    MESSAGE_12,
    MESSAGE_15,
    OVER_8,
    OVER_8E,
)
from tests.unit.vendors.teltonika.golden_five_groups import GOLDEN_FIVE_GROUPS
from tests.unit.vendors.teltonika.golden_messages import (
    COMMAND_12,
    LONG_TIME_13,
    REFUSAL_14,
    SERIAL_13,
    SERIAL_15,
    TWO_PARTS_12,
)
from tests.unit.vendors.teltonika.strategies import unsigned
from tracker.outcomes import Decoded
from tracker.vendors.documents import render
from tracker.vendors.teltonika.avl import CODEC_8E, CODECS, Codec, Packet, Record
from tracker.vendors.teltonika.content import Content, encode_data
from tracker.vendors.teltonika.datagram import Datagram
from tracker.vendors.teltonika.document import document
from tracker.vendors.teltonika.frames import (
    Frame,
    Login,
    Ping,
    TcpFrame,
    UdpFrame,
    decode_frames,
    encode_any_frame,
)
from tracker.vendors.teltonika.messages import (
    MESSAGE_CODECS,
    Message,
    MessageCodec,
    Messages,
)
from tracker.vendors.teltonika.naming import Naming
from tracker.vendors.teltonika.parsing import parse

CODEC_16_FRAME: Final = ON_CHANGE.frame
CODEC_7_FRAME: Final = golden_7.FRAME
COMMAND: Final = COMMAND_12.frame
TIMED: Final = SERIAL_13.frame
NOT_THIS_DEVICE: Final = REFUSAL_14.frame
TIMED_AND_ADDRESSED: Final = SERIAL_15.frame
DATAGRAM: Final = OVER_8.datagram

#: Name of each example → its bytes; all can be decoded and encoded.
EXAMPLES: Final = {
    "login": LOGIN,
    "ping": b"\xff",
    "pings": b"\xff\xff\xff",
    **{golden.name: golden.frame for golden in GOLDEN},
    **{golden.name: golden.frame for golden in GOLDEN_FIVE_GROUPS},
    "codec 16": CODEC_16_FRAME,
    "codec 12": COMMAND,
    "codec 12 in two parts": TWO_PARTS_12.frame,
    "codec 13": TIMED,
    "codec 13 with a time of 8 bytes": LONG_TIME_13.frame,
    "codec 14": NOT_THIS_DEVICE,
    "codec 15": TIMED_AND_ADDRESSED,
    "datagram": DATAGRAM,
    "datagram of codec 8E": OVER_8E.datagram,
    "datagram of codec 12": MESSAGE_12,
    "datagram of codec 15": MESSAGE_15,
}

imeis = st.text("0123456789", min_size=15, max_size=15)


@st.composite
def records(draw: st.DrawFn, codec: Codec) -> Record:
    """Draw a record with any value in any field of the codec."""
    ids = unsigned(codec.event.size)
    elements: list[tuple[int, int, int]] = []
    for width in codec.element:
        group = st.lists(st.tuples(ids, unsigned(width)), max_size=3)
        elements.extend((element_id, width, value) for element_id, value in draw(group))
    variable = st.lists(st.tuples(ids, st.binary(max_size=20)), max_size=3)
    return Record(
        timestamp=draw(unsigned(8)),
        priority=draw(unsigned(1)),
        longitude=draw(st.integers(-(2**31), 2**31 - 1)),
        latitude=draw(st.integers(-(2**31), 2**31 - 1)),
        altitude=draw(st.integers(-(2**15), 2**15 - 1)),
        angle=draw(unsigned(2)),
        satellites=draw(unsigned(1)),
        speed=draw(unsigned(2)),
        event=draw(ids),
        elements=tuple(elements),
        variable=tuple(draw(variable)) if codec is CODEC_8E else (),
        generation=draw(unsigned(1)) if codec.generation else None,
    )


def packets() -> st.SearchStrategy[Packet]:
    """Return a strategy for packets of each codec that can be encoded."""
    return st.sampled_from(list(CODECS.values())).flatmap(
        lambda codec: st.lists(records(codec), max_size=3).map(
            lambda made: Packet(codec, tuple(made))
        )
    )


def messages() -> st.SearchStrategy[Messages]:
    """Return a strategy for frames with messages of each codec, with text or with bytes."""

    def of(codec: MessageCodec) -> st.SearchStrategy[Messages]:
        message = st.builds(
            Message,
            codec=st.just(codec),
            type=unsigned(1),
            content=st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
            timestamp=st.integers(1000, 2**32 - 1) if codec.timed else st.none(),
            imei=imeis if codec.addressed else st.none(),
        )
        parts = st.lists(message, min_size=1, max_size=3).map(tuple)
        quantities = st.tuples(unsigned(1), unsigned(1))
        return st.builds(Messages, st.just(codec), parts, quantities)

    return st.sampled_from(list(MESSAGE_CODECS.values())).flatmap(of)


def _tcp_frame(content: Content) -> TcpFrame:
    return TcpFrame(content, encode_data(content))


def _udp_frame(content: Content, ids: tuple[int, int, int], imei: str) -> UdpFrame:
    packet_id, avl_packet_id, unused = ids
    data = encode_data(content)
    return UdpFrame(content, Datagram(packet_id, avl_packet_id, imei, data, unused))


pings = st.integers(1, 5).map(Ping)
logins = imeis.map(Login)
frames = (packets() | messages()).map(_tcp_frame)
datagrams = st.builds(
    _udp_frame,
    packets() | messages(),
    st.tuples(unsigned(2), unsigned(1), unsigned(1)),
    imeis,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def decoded(data: bytes) -> tuple[Frame, ...]:
    """Return the frames in these bytes."""
    outcome = decode_frames(data)
    assert isinstance(outcome, Decoded)
    return outcome.value


def as_document(data: bytes, names: bool = False) -> Any:
    """Return the document of these bytes, parsed from its text."""
    return json.loads(
        render(document(decoded(data), Naming({}).names("FMB920") if names else None))
    )


def as_bytes(value: Any) -> bytes:
    """Return the bytes that a document describes."""
    return b"".join(map(encode_any_frame, parse(value)))
