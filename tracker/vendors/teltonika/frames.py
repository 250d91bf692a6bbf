"""Frames of any kind, recognised by their first bytes.

A stream is a sequence of pings, logins and TCP frames; a datagram is one UDP frame. A connection
knows which kinds it expects (see ``dialect``); this module knows only the bytes.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final, Literal

from attrs import evolve, field, frozen

from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected, as_fatal
from tracker.vendors.teltonika.content import Content, decode_data, encode_data
from tracker.vendors.teltonika.datagram import (
    Datagram,
    decode_datagram,
    encode_datagram,
    resembles_datagram,
)
from tracker.vendors.teltonika.envelope import PING, PREAMBLE, decode_frame, encode_frame
from tracker.vendors.teltonika.login import IMEI_DIGITS, decode_login, encode_login
from tracker.wording import counted

Kind = Literal["ping", "login", "frame", "datagram"]

#: Highest value of ``--frame-bytes`` and ``--command-frame-bytes``.
MAX_DATA_BYTES: Final = 1 << 20

_IMEI_LENGTH: Final = IMEI_DIGITS.to_bytes(2, "big")
_FRAME_HEADER: Final = 8
_DATAGRAM_HEADER: Final = 23


@frozen
class Ping:
    """Consecutive bytes FF."""

    count: int


@frozen
class Login:
    """The IMEI of a device, sent first on a connection."""

    imei: str


@frozen
class TcpFrame:
    """A frame with records or messages over TCP."""

    content: Content
    data: bytes = field(repr=False)
    """The bytes of the content, codec id to second count."""

    @property
    def crc(self) -> int:
        """Checksum of the data."""
        return int.from_bytes(encode_frame(self.data)[-4:], "big")


@frozen
class UdpFrame:
    """A datagram with records or messages."""

    content: Content
    datagram: Datagram

    @property
    def length(self) -> int:
        """Number of bytes after the length field."""
        return _DATAGRAM_HEADER + len(self.datagram.data) - 2


Frame = Ping | Login | TcpFrame | UdpFrame


def recognises(data: bytes) -> bool:
    """Return True if the first bytes are those of a frame of any kind, valid or not."""
    return data[0] in (PING, 0) or resembles_datagram(data) is not False


def decode_frames(data: bytes, kind: Kind | None = None) -> Decoded[tuple[Frame, ...]] | Fatal:
    """Decode all bytes.

    :param kind: kind of each frame; None to recognise it by its first bytes.
    :return: the frames, or the first error, whose ``offset`` counts from the start of ``data``. A
        truncated frame is an error.
    """
    frames: list[Frame] = []
    rest = bytearray(data)
    while rest or not data:
        offset = len(data) - len(rest)
        found_kind = kind or _kind_of(rest, alone=offset == 0)
        outcome = found_kind if isinstance(found_kind, Fatal) else _DECODERS[found_kind](rest)
        if isinstance(outcome, Fatal):
            return as_fatal(outcome, offset)
        frames.append(outcome.value)
        del rest[: outcome.used]
    return Decoded(tuple(frames), len(data))


def encode_any_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame: the inverse of :func:`decode_frames`.

    :raises ValueError: if a value does not fit its field, or the codec is 7, which is for decoding
        only.
    """
    if isinstance(frame, Ping):
        return bytes((PING,)) * frame.count
    if isinstance(frame, Login):
        return encode_login(frame.imei)
    data = encode_data(frame.content)
    if isinstance(frame, TcpFrame):
        return encode_frame(data)
    datagram = frame.datagram
    return encode_datagram(evolve(datagram, data=data))


def _kind_of(data: bytearray, alone: bool) -> Kind | Fatal:
    if data[:1] == bytes((PING,)):
        return "ping"
    if len(data) < 2:
        return _unrecognised("2 bytes or more", data[:8].hex() or "nothing")
    if data[:2] == PREAMBLE[:2]:
        return "frame"
    if data[:2] == _IMEI_LENGTH:
        return "login"  # a datagram would be longer than 15 bytes
    is_datagram = resembles_datagram(bytes(data)) if alone else False
    if is_datagram is None:
        length, follow = int.from_bytes(data[:2], "big"), len(data) - 2
        return _unrecognised(
            f"000f (login) or {counted(length, 'byte')} after the length (datagram)",
            f"{length:04x} and {counted(follow, 'byte')}",
        )
    if is_datagram:
        return "datagram"
    if data[0] == 0:
        return "login"
    return _unrecognised("ff (ping), 000f (login), 00000000 (frame) or a datagram", data[:8].hex())


def _unrecognised(expected: str, found: str) -> Fatal:
    reason = "unknown kind of frame: the first bytes match no kind"
    return Fatal(0, reason, field="frame", expected=expected, found=found)


def _decode_pings(data: bytearray) -> Decoded[Frame] | Fatal:
    count = len(data) - len(data.lstrip(bytes((PING,))))
    return Decoded(Ping(count), count)


def _decode_login(data: bytearray) -> Decoded[Frame] | Fatal:
    outcome = decode_login(data)
    if isinstance(outcome, Incomplete):
        return _truncated(data, (("length", 2), ("imei", IMEI_DIGITS)))
    if isinstance(outcome, Decoded):
        return Decoded(Login(outcome.value), outcome.used)
    return as_fatal(outcome)


def _decode_frame(data: bytearray) -> Decoded[Frame] | Fatal:
    outcome = decode_frame(data, MAX_DATA_BYTES)
    if isinstance(outcome, Incomplete):
        length = int.from_bytes(data[4:_FRAME_HEADER], "big")
        return _truncated(data, (("preamble", 4), ("length", 4), ("data", length), ("crc", 4)))
    if isinstance(outcome, Fatal):
        return outcome
    content = decode_data(outcome.value)
    if isinstance(content, Rejected):
        return as_fatal(content, _FRAME_HEADER)
    return Decoded(TcpFrame(content.value, outcome.value), outcome.used)


def _decode_datagram(data: bytearray) -> Decoded[Frame] | Fatal:
    outcome = decode_datagram(bytes(data))
    if isinstance(outcome, Rejected):
        return as_fatal(outcome)
    content = decode_data(outcome.value.data)
    if isinstance(content, Rejected):
        return as_fatal(content, _DATAGRAM_HEADER)
    return Decoded(UdpFrame(content.value, outcome.value), outcome.used)


_DECODERS: Final = {
    "ping": _decode_pings,
    "login": _decode_login,
    "frame": _decode_frame,
    "datagram": _decode_datagram,
}


def _truncated(data: bytearray, fields: tuple[tuple[str, int], ...]) -> Fatal:
    """Return the error of the first of these fields that is incomplete."""
    ends = accumulate(size for _, size in fields)
    name, size, end = next(
        (name, size, end) for (name, size), end in zip(fields, ends, strict=True) if end > len(data)
    )
    offset = end - size
    return Fatal(
        offset,
        f"{name} is truncated",
        field=name,
        expected=counted(size, "byte"),
        found=f"{counted(len(data) - offset, 'byte')} up to the end",
    )
