"""Units of every kind: as examples from the wire, and as strategies for properties."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import strategies as st

from tests.unit.vendors.teltonika.golden import GOLDEN, LOGIN
from tests.unit.vendors.teltonika.strategies import unsigned
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.avl import CODEC_8E, CODECS, Codec, Packet, Record
from tracker.vendors.teltonika.content import Content, encode_data
from tracker.vendors.teltonika.datagram import Datagram
from tracker.vendors.teltonika.dictionary import load
from tracker.vendors.teltonika.document import document, render
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, MessageCodec
from tracker.vendors.teltonika.parsing import parse
from tracker.vendors.teltonika.units import (
    Frame,
    Login,
    Ping,
    UdpPacket,
    Unit,
    decode_units,
    encode_unit,
)

CODEC_16_FRAME: Final = bytes.fromhex(
    "00000000 0000005F 10 02"
    "0000016BDBC78330 00 00000000 00000000 0000 0000 00 0000"
    "000B 05 04 02 000100 000300 02 000B0027 0042563A 00 00"
    "0000016BDBC78718 00 00000000 00000000 0000 0000 00 0000"
    "000B 05 04 02 000100 000300 02 000B0026 0042563A 00 00"
    "02 00005FB3"
)
CODEC_7_FRAME: Final = bytes.fromhex(
    "00000000 00000055 07 04"
    "50AA1432 02 01F001"
    "50AA17F3 03 1F 42332A4C4193D68C 008D 00 02 09 01F001"
    "50AA1B6A 03 1F 423383F54193624F 009D 00 00 0A 01F001"
    "50AA1C23 0F C0 1A 0000552B 04 0164F400DD00F001 01 43100C 01 0500000005"
    "04 00006846"
)
COMMAND: Final = bytes.fromhex("00000000 0000000F 0C 01 05 00000007 676574696E666F 01 00004312")
TIMED: Final = bytes.fromhex(
    "00000000 00000024 0D 01 06 0000001C 642B3AD1"
    "4754534C7C367C317C307C31323734393838347C317C0D0A 01 0000EC11"
)
NOT_THIS_DEVICE: Final = bytes.fromhex(
    "00000000 00000010 0E 01 11 00000008 0352093081452468 01 0000635E"
)
TIMED_AND_ADDRESSED: Final = bytes.fromhex(
    "00000000 0000001B 0F 01 0B 00000013 654B65A4 0123456789123456 48656C6C6F210A 01 000093D6"
)
DATAGRAM: Final = bytes.fromhex(
    "003D CAFE 01 05 000F 333532303933303836343033363535 08 01"
    "0000016B4F815B30 01 00000000 00000000 0000 0000 00 0000"
    "01 03 02 1503 0101 01 425DBC 00 00 01"
)
DATAGRAM_8E: Final = bytes.fromhex(
    "005F CAFE 01 07 000F 333532303933303836343033363535 8E 01"
    "0000016B4F831C68 01 00000000 00000000 0000 0000 00 0000"
    "0001 0005 0001 000101 0001 0011009D 0001 0010015E2C88"
    "0002 000B000000003544C87A 000E000000001DD7E06A 0000 01"
)

#: What each of them is → the bytes; all can be written as well as read.
EXAMPLES: Final = {
    "login": LOGIN,
    "ping": b"\xff",
    "pings": b"\xff\xff\xff",
    **{golden.name: golden.frame for golden in GOLDEN},
    "codec 16": CODEC_16_FRAME,
    "codec 12": COMMAND,
    "codec 13": TIMED,
    "codec 14": NOT_THIS_DEVICE,
    "codec 15": TIMED_AND_ADDRESSED,
    "datagram": DATAGRAM,
    "datagram of codec 8E": DATAGRAM_8E,
}

imeis = st.text("0123456789", min_size=15, max_size=15)


@st.composite
def records(draw: st.DrawFn, codec: Codec) -> Record:
    """Records with any value in any field that the codec has."""
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
    """Packets of each codec that can be written."""
    return st.sampled_from(list(CODECS.values())).flatmap(
        lambda codec: st.lists(records(codec), max_size=3).map(
            lambda made: Packet(codec, tuple(made))
        )
    )


def messages() -> st.SearchStrategy[Message]:
    """Messages of each codec, of text and of bytes."""

    def of(codec: MessageCodec) -> st.SearchStrategy[Message]:
        return st.builds(
            Message,
            codec=st.just(codec),
            type=unsigned(1),
            content=st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
            timestamp=unsigned(4) if codec.timed else st.none(),
            imei=imeis if codec.addressed else st.none(),
            quantities=st.tuples(unsigned(1), unsigned(1)),
        )

    return st.sampled_from(list(MESSAGE_CODECS.values())).flatmap(of)


def _frame(content: Content) -> Frame:
    return Frame(content, encode_data(content))


def _packet(content: Packet, ids: tuple[int, int, int], imei: str) -> UdpPacket:
    packet_id, avl_packet_id, unused = ids
    data = encode_data(content)
    return UdpPacket(content, Datagram(packet_id, avl_packet_id, imei, data, unused))


pings = st.integers(1, 5).map(Ping)
logins = imeis.map(Login)
frames = (packets() | messages()).map(_frame)
datagrams = st.builds(_packet, packets(), st.tuples(unsigned(2), unsigned(1), unsigned(1)), imeis)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def decoded(data: bytes) -> tuple[Unit, ...]:
    """The units that these bytes are."""
    outcome = decode_units(data)
    assert isinstance(outcome, Decoded)
    return outcome.value


def as_document(data: bytes, names: bool = False) -> Any:
    """The document of these bytes, by way of its text."""
    return json.loads(render(document(decoded(data), load() if names else None)))


def as_bytes(value: Any) -> bytes:
    """The bytes that a document describes."""
    return b"".join(map(encode_unit, parse(value)))
