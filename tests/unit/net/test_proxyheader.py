"""Decoding of PROXY headers of both versions."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracker.net.proxyheader import (
    MAX_BINARY,
    MAX_TEXT,
    ProxiedClient,
    decode_proxy_header,
)
from tracker.outcomes import Decoded, Fatal, Incomplete

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT = ProxiedClient("192.0.2.1", 40_000)
CLIENT_6 = ProxiedClient("2001:db8::1", 40_000)
#: Extensions of HAProxy: PP2_TYPE_UNIQUE_ID (0x05) and PP2_TYPE_AUTHORITY (0x02).
EXTENSIONS = b"\x05\x00\x03abc\x02\x00\x07example"
LONGEST = ":".join(["ffff"] * 8)


def binary(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def addresses(source: str, port: int = 40_000) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    other = "2001:db8::2" if ":" in source else "198.51.100.1"
    packed = socket.inet_pton(family, source) + socket.inet_pton(family, other)
    return packed + struct.pack("!HH", port, 5027)


GOLDEN = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 5027\r\n", CLIENT),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 5027\r\n", CLIENT_6),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 40000 5027\r\n", CLIENT),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
     ProxiedClient("255.255.255.255", 65535)),
    (f"PROXY TCP6 {LONGEST} {LONGEST} 65535 65535\r\n".encode(), ProxiedClient(LONGEST, 65535)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (binary(0x21, 0x11, addresses("192.0.2.1")), CLIENT),
    (binary(0x21, 0x11, addresses("192.0.2.1") + EXTENSIONS), CLIENT),
    (binary(0x21, 0x21, addresses("2001:db8::1")), CLIENT_6),
    (binary(0x21, 0x21, addresses("::ffff:192.0.2.1") + EXTENSIONS), CLIENT),
    (binary(0x21, 0x31, bytes(216)), None),
    (binary(0x21, 0x00, b""), None),
    (binary(0x21, 0x00, EXTENSIONS), None),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, addresses("192.0.2.1")), None),
    (binary(0x20, 0xFF, EXTENSIONS), None),
    (binary(0x21, 0x11, addresses("192.0.2.1") + bytes(MAX_BINARY - 16 - 12)), CLIENT),
]  # fmt: skip


@pytest.mark.parametrize(("header", "client"), GOLDEN)
@pytest.mark.parametrize("after", [b"", b"\r\n", b"\x00\x0f356307042441013", SIGNATURE])
def test_complete_header_is_decoded(
    header: bytes, client: ProxiedClient | None, after: bytes
) -> None:
    assert decode_proxy_header(header + after) == Decoded(client, len(header))
    assert decode_proxy_header(bytearray(header + after)) == Decoded(client, len(header))


@pytest.mark.parametrize(("header", "client"), GOLDEN)
def test_header_truncated_at_any_byte_is_incomplete(
    header: bytes, client: ProxiedClient | None
) -> None:
    for size in range(len(header)):
        outcome = decode_proxy_header(header[:size])
        assert isinstance(outcome, Incomplete)
        assert 1 <= outcome.missing <= len(header) - size


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x0f356307042441013",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy TCP4 192.0.2.1 198.51.100.1 40000 5027\r\n",
        b"PROXY\r\n",
        b"PROXY  TCP4 192.0.2.1 198.51.100.1 40000 5027\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 5027 \r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.1 40000 5027\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 40000\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.1 40000 5027\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 40000 5027\r\n",
        b"PROXY TCP4 192.0.2.1 example 40000 5027\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 40000 5027\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.1 40000 5027\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 5027\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 040 5027\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 +40 5027\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 -1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 \xd9\xa4 5027\r\n",
        b"PROXY TCP4 192.0.2.\xb9 198.51.100.1 40000 5027\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.1 40000 5027\r\n",
        b"PROXY UNKNOWN".ljust(MAX_TEXT, b" "),
        b"PROXY UNKNOWN".ljust(MAX_TEXT - 1, b" ") + b"\r\n",
        SIGNATURE[:11] + b"\r",
        binary(0x11, 0x11, addresses("192.0.2.1")),
        binary(0x22, 0x11, addresses("192.0.2.1")),
        binary(0x21, 0x12, addresses("192.0.2.1")),
        binary(0x21, 0x41, addresses("192.0.2.1")),
        binary(0x21, 0x11, addresses("192.0.2.1")[:-1]),
        binary(0x21, 0x21, addresses("2001:db8::1")[:-1]),
        binary(0x21, 0x11, bytes(MAX_BINARY - 15)),
        binary(0x20, 0x00, bytes(65_535)),
    ],
)
def test_malformed_header_is_fatal(data: bytes) -> None:
    outcome = decode_proxy_header(data)
    assert isinstance(outcome, Fatal)
    assert "\n" not in outcome.reason
    assert outcome.reason.isprintable()


@pytest.mark.parametrize(
    ("beginning", "size"),
    [(b"PROXY UNKNOWN ", MAX_TEXT), (binary(0x21, 0x11, b"")[:14] + b"\xff\xff", 16)],
)
def test_endless_header_is_fatal_at_its_limit(beginning: bytes, size: int) -> None:
    assert isinstance(decode_proxy_header(beginning.ljust(size, b"x")[: size - 1]), Incomplete)
    assert isinstance(decode_proxy_header(beginning.ljust(size, b"x")), Fatal)


_BEGINNINGS = st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"])


@given(_BEGINNINGS, st.binary(max_size=300))
@example(SIGNATURE, b"\x21\x11\x00\x0c" + bytes(12))
def test_any_bytes_are_decoded_within_limits(beginning: bytes, rest: bytes) -> None:
    data = beginning + rest
    outcome = decode_proxy_header(data)
    if isinstance(outcome, Decoded):
        assert 0 < outcome.used <= min(len(data), MAX_BINARY)
        # The result does not depend on the bytes after the header, and needs the whole header.
        assert decode_proxy_header(data[: outcome.used]) == outcome
        assert isinstance(decode_proxy_header(data[: outcome.used - 1]), Incomplete)
    elif isinstance(outcome, Incomplete):
        assert outcome.missing >= 1
        assert len(data) < MAX_BINARY
