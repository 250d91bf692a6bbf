"""Decode the PROXY header that a proxy sends before the bytes of a client.

The source of every fact here is "The PROXY protocol, versions 1 & 2"
(https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, section 2). The first bytes tell the
two versions apart.

The connection begins with the header. A malformed header is always fatal, because the start of
the client's bytes is then unknown.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from attrs import frozen

from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.wording import counted

#: Bytes of the longest header of version 1, including its line end (section 2.1).
MAX_TEXT: Final = 107
#: Bytes of the longest accepted header of version 2. Its length field allows 65,551; addresses
#: need up to 232 bytes, the extensions of HAProxy and of cloud balancers some hundred.
MAX_BINARY: Final = 2048

_TEXT: Final = b"PROXY "
_MIN_TEXT: Final = len(b"PROXY UNKNOWN\r\n")
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = Struct("!12sBBH")
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_IPV4: Final = Struct("!4s4sHH")
_IPV6: Final = Struct("!16s16sHH")
#: Family and transport → bytes of its addresses. (Those of datagrams cannot occur on a stream.)
_ADDRESS_BYTES: Final = {0x00: 0, 0x11: _IPV4.size, 0x21: _IPV6.size, 0x31: 216}


@frozen
class ProxiedClient:
    """Address of the client on whose behalf a proxy has connected."""

    host: str
    """An IP address."""
    port: int


#: The value is None if the header names no client, as in a health check by the proxy.
Outcome = Decoded[ProxiedClient | None] | Incomplete | Fatal


def decode_proxy_header(data: bytes | bytearray) -> Outcome:
    r"""Decode the header at the beginning of ``data``, and ignore all bytes after it.

    The result is never incomplete for :data:`MAX_BINARY` or more bytes.

    >>> decode_proxy_header(b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 5027\r\n\x00\x0f")
    Decoded(value=ProxiedClient(host='192.0.2.1', port=40000), used=46)
    """
    if _TEXT.startswith(data[: len(_TEXT)]):
        return _decode_text(data)
    if _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        return _decode_binary(data)
    return Fatal(0, "no PROXY header")


def _decode_text(data: bytes | bytearray) -> Outcome:
    end = data.find(b"\r\n", 0, MAX_TEXT)
    if end < 0:
        if len(data) >= MAX_TEXT:
            return Fatal(MAX_TEXT, f"PROXY header: no line end within {MAX_TEXT} bytes")
        return Incomplete(max(1, _MIN_TEXT - len(data)))
    words = bytes(data[len(_TEXT) : end]).split(b" ")
    used = end + 2
    if words[0] == b"UNKNOWN":  # the rest of the line is ignored
        return Decoded(None, used)
    if words[0] not in (b"TCP4", b"TCP6") or len(words) != 5:
        return Fatal(len(_TEXT), "PROXY header: not TCP4 or TCP6 with two addresses and ports")
    kind = IPv4Address if words[0] == b"TCP4" else IPv6Address
    try:
        client = _client(kind(words[1].decode("ascii")), _port(words[3]))
        kind(words[2].decode("ascii"))
        _port(words[4])
    except ValueError:
        return Fatal(len(_TEXT), "PROXY header: malformed address or port")
    return Decoded(client, used)


def _port(text: bytes) -> int:
    port = int(text) if text.isdigit() and len(text) <= 5 else -1
    if not 0 <= port <= 65535 or str(port).encode() != text:
        raise ValueError(text)
    return port


def _decode_binary(data: bytes | bytearray) -> Outcome:
    if len(data) < _FIXED.size:
        return Incomplete(_FIXED.size - len(data))
    _, command, family, length = _FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        return Fatal(12, f"PROXY header: unknown version or command 0x{command:02x}")
    used = _FIXED.size + length
    if used > MAX_BINARY:
        return Fatal(14, f"PROXY header: {counted(used, 'byte')}, more than {MAX_BINARY}")
    if command == _PROXY:
        if family not in _ADDRESS_BYTES:
            return Fatal(13, f"PROXY header: unknown family or transport 0x{family:02x}")
        if length < _ADDRESS_BYTES[family]:
            return Fatal(14, f"PROXY header: {counted(length, 'byte')} cannot hold its addresses")
    if len(data) < used:
        return Incomplete(used - len(data))
    if command == _PROXY and family == 0x11:
        source, _, port, _ = _IPV4.unpack_from(data, _FIXED.size)
        return Decoded(_client(IPv4Address(source), port), used)
    if command == _PROXY and family == 0x21:
        source, _, port, _ = _IPV6.unpack_from(data, _FIXED.size)
        return Decoded(_client(IPv6Address(source), port), used)
    return Decoded(None, used)  # the proxy itself, or a client on a Unix socket


def _client(address: IPv4Address | IPv6Address, port: int) -> ProxiedClient:
    # A proxy that listens on IPv6 for both families sends IPv4 addresses in this form.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return ProxiedClient(str(mapped or address), port)
