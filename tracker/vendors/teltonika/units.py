"""Everything that a Teltonika device may send, told apart by its first bytes.

A stream is a row of pings, logins and frames; a datagram stands alone. A connection
knows which of them it waits for (see ``protocol``); here nothing is known but the bytes.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final, Literal

from attrs import evolve, field, frozen

from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.teltonika.avl import Packet
from tracker.vendors.teltonika.codec7 import Codec7Packet
from tracker.vendors.teltonika.content import Content, decode_data, encode_data
from tracker.vendors.teltonika.datagram import (
    Datagram,
    decode_datagram,
    encode_datagram,
    resembles_datagram,
)
from tracker.vendors.teltonika.frame import PING, PREAMBLE, decode_frame, encode_frame
from tracker.vendors.teltonika.login import IMEI_DIGITS, decode_login, encode_login
from tracker.vendors.teltonika.messages import Message

#: What a datagram may carry.
Records = Packet | Codec7Packet
Kind = Literal["ping", "login", "frame", "datagram"]

#: No server can be told to take a longer frame than this.
MAX_DATA: Final = 1 << 20

_IMEI_LENGTH: Final = IMEI_DIGITS.to_bytes(2, "big")
_FRAME_HEADER: Final = 8
_DATAGRAM_HEADER: Final = 23


@frozen
class Ping:
    """So many bytes FF in a row."""

    count: int


@frozen
class Login:
    """A device says who it is."""

    imei: str


@frozen
class Frame:
    """A frame over TCP."""

    content: Content
    data: bytes = field(repr=False)
    """The bytes of the content: codec id to second count."""

    @property
    def crc(self) -> int:
        """The checksum that belongs to the data."""
        return int.from_bytes(encode_frame(self.data)[-4:], "big")


@frozen
class UdpPacket:
    """A packet over UDP."""

    content: Records
    datagram: Datagram

    @property
    def length(self) -> int:
        """Bytes that follow the length itself."""
        return _DATAGRAM_HEADER + len(self.datagram.data) - 2


Unit = Ping | Login | Frame | UdpPacket


def decode_units(data: bytes, kind: Kind | None = None) -> Decoded[tuple[Unit, ...]] | Fatal:
    """Read all of the bytes.

    :param kind: what each unit is; None to tell it by its first bytes.
    :return: the units, or the first fault, whose ``offset`` counts from the start of
        ``data``. What is cut off is a fault, too.
    """
    units: list[Unit] = []
    rest = bytearray(data)
    while rest or not data:
        offset = len(data) - len(rest)
        told = kind or _kind_of(rest, alone=offset == 0)
        outcome = told if isinstance(told, Fatal) else _DECODERS[told](rest)
        if isinstance(outcome, Fatal):
            return _moved(outcome, offset)
        units.append(outcome.value)
        del rest[: outcome.used]
    return Decoded(tuple(units), len(data))


def encode_unit(unit: Unit) -> bytes:
    """The bytes of a unit: the inverse of :func:`decode_units`.

    :raises ValueError: when a value does not fit, and for Codec 7, which is for reading
        only.
    """
    if isinstance(unit, Ping):
        return bytes((PING,)) * unit.count
    if isinstance(unit, Login):
        return encode_login(unit.imei)
    data = encode_data(unit.content)
    if isinstance(unit, Frame):
        return encode_frame(data)
    datagram = unit.datagram
    return encode_datagram(evolve(datagram, data=data))


def _kind_of(data: bytearray, alone: bool) -> Kind | Fatal:
    if data[:1] == bytes((PING,)):
        return "ping"
    if len(data) < 2:
        return _not_told("2 bytes or more", data[:8].hex() or "nothing")
    if data[:2] == PREAMBLE[:2]:
        return "frame"
    if data[:2] == _IMEI_LENGTH:
        return "login"  # a datagram would be longer than 15 bytes
    is_datagram = resembles_datagram(bytes(data)) if alone else False
    if is_datagram is None:
        length, follow = int.from_bytes(data[:2], "big"), len(data) - 2
        return _not_told(
            f"000f (login) or {length} bytes after the length (datagram)",
            f"{length:04x} and {follow} bytes",
        )
    if is_datagram:
        return "datagram"
    if data[0] == 0:
        return "login"
    return _not_told("ff (ping), 000f (login), 00000000 (frame) or a datagram", data[:8].hex())


def _not_told(expected: str, found: str) -> Fatal:
    reason = "not known by its first bytes"
    return Fatal(0, reason, field="unit", expected=expected, found=found)


def _decode_pings(data: bytearray) -> Decoded[Unit] | Fatal:
    count = len(data) - len(data.lstrip(bytes((PING,))))
    return Decoded(Ping(count), count)


def _decode_login(data: bytearray) -> Decoded[Unit] | Fatal:
    outcome = decode_login(data)
    if isinstance(outcome, Incomplete):
        return _cut(data, (("length", 2), ("imei", IMEI_DIGITS)))
    if isinstance(outcome, Decoded):
        return Decoded(Login(outcome.value), outcome.used)
    return _moved(outcome, 0)


def _decode_frame(data: bytearray) -> Decoded[Unit] | Fatal:
    outcome = decode_frame(data, MAX_DATA)
    if isinstance(outcome, Incomplete):
        length = int.from_bytes(data[4:_FRAME_HEADER], "big")
        return _cut(data, (("preamble", 4), ("length", 4), ("data", length), ("crc", 4)))
    if isinstance(outcome, Fatal):
        return outcome
    content = decode_data(outcome.value)
    if isinstance(content, Rejected):
        return _moved(content, _FRAME_HEADER)
    return Decoded(Frame(content.value, outcome.value), outcome.used)


def _decode_packet(data: bytearray) -> Decoded[Unit] | Fatal:
    outcome = decode_datagram(bytes(data))
    if isinstance(outcome, Rejected):
        return _moved(outcome, 0)
    content = decode_data(outcome.value.data)
    if isinstance(content, Rejected):
        return _moved(content, _DATAGRAM_HEADER)
    if isinstance(content.value, Message):
        return Fatal(
            _DATAGRAM_HEADER,
            "a message over UDP, which carries records only",
            field="codec",
            expected="a codec of records",
            found=f"{content.value.codec.codec_id:#04x}",
        )
    return Decoded(UdpPacket(content.value, outcome.value), outcome.used)


_DECODERS: Final = {
    "ping": _decode_pings,
    "login": _decode_login,
    "frame": _decode_frame,
    "datagram": _decode_packet,
}


def _cut(data: bytearray, fields: tuple[tuple[str, int], ...]) -> Fatal:
    """The first of these fields, in order, that is not there in full."""
    ends = accumulate(size for _, size in fields)
    name, size, end = next(
        (name, size, end) for (name, size), end in zip(fields, ends, strict=True) if end > len(data)
    )
    offset = end - size
    return Fatal(
        offset,
        f"{name} is cut off",
        field=name,
        expected=f"{size} bytes",
        found=f"{len(data) - offset} bytes up to the end",
    )


def _moved(fault: Rejected | Fatal, by: int) -> Fatal:
    return Fatal(
        fault.offset + by,
        fault.reason,
        field=fault.field,
        expected=fault.expected,
        found=fault.found,
    )
