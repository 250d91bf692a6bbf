"""Arguments of endpoint strings, and addresses in log lines."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tracker.net.endpoints import (
    ip_address,
    named_arguments,
    number,
    readable,
    refuse_unknown_arguments,
    split,
    with_default,
)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp:5027", "tcp:5027:backlog=1024"),
        ("tcp:port=5027", "tcp:port=5027:backlog=1024"),
        ("tcp:5027:127.0.0.1", "tcp:5027:127.0.0.1:backlog=1024"),
        ("tcp:5027:127.0.0.1:50", "tcp:5027:127.0.0.1:50"),
        ("tcp:5027:interface=127.0.0.1:backlog=50", "tcp:5027:interface=127.0.0.1:backlog=50"),
        ("tcp:backlog=50:port=5027", "tcp:backlog=50:port=5027"),
        (r"tcp:5027:interface=\:\:1", r"tcp:5027:interface=\:\:1:backlog=1024"),
        (r"tcp:5027:\:\:1", r"tcp:5027:\:\:1:backlog=1024"),
        ("unix:/tmp/tcp:mode=660", "unix:/tmp/tcp:mode=660"),
        ("tcp6:5027", "tcp6:5027"),
    ],
)
def test_missing_argument_is_added_to_a_tcp_endpoint(endpoint: str, expected: str) -> None:
    assert with_default(endpoint, {"tcp": 3}, "backlog", 1024) == expected


def test_positional_argument_is_recognized() -> None:
    kinds = {"tcp": 2}
    assert with_default("tcp:9127", kinds, "interface", "::") == "tcp:9127:interface=::"
    assert with_default("tcp:9127:0.0.0.0", kinds, "interface", "::") == "tcp:9127:0.0.0.0"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (IPv4Address("TCP", "192.0.2.1", 5027), "192.0.2.1:5027"),
        (IPv6Address("TCP", "2001:db8::1", 5027), "[2001:db8::1]:5027"),
        (UNIXAddress(b"/run/tracker.sock"), "/run/tracker.sock"),
        (UNIXAddress(b"/run/\xff"), "/run/\N{REPLACEMENT CHARACTER}"),
        (UNIXAddress(None), "UNIXAddress"),
        (object(), "object"),
    ],
)
def test_address_is_formatted_for_logs(address: object, text: str) -> None:
    assert readable(address) == text


def test_positional_and_named_arguments_are_returned_by_name() -> None:
    assert named_arguments("udp:5027:127.0.0.1", ("port", "interface")) == named_arguments(
        "udp:interface=127.0.0.1:port=5027", ("port", "interface")
    )
    assert named_arguments(r"unix:/run/a\:b.sock:mode=0660", ("path",)) == {
        "path": "/run/a:b.sock",
        "mode": "0660",
    }
    assert named_arguments("ssl:5099:privateKey=a=b", ("port",)) == {
        "port": "5099",
        "privateKey": "a=b",
    }


@pytest.mark.parametrize(
    "endpoint",
    [
        "udp:5027:127.0.0.1",
        "udp:5027:port=5028",
        "udp:interface=127.0.0.1:interface=127.0.0.2",
    ],
)
def test_surplus_and_duplicate_arguments_are_rejected(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"port|interface|arguments"):
        named_arguments(endpoint, ("port",))


def test_unknown_argument_is_rejected() -> None:
    refuse_unknown_arguments({}, ("port", "mode"))
    with pytest.raises(ValueError, match=r"'mood'.* port, mode"):
        refuse_unknown_arguments({"mood": "0660"}, ("port", "mode"))


@pytest.mark.parametrize("text", ["", "-1", "65536", "0x10", "5027.0", "²", "9" * 5000])
def test_invalid_port_number_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        number("port", text)


def test_interface_must_be_an_ip_address_or_empty() -> None:
    assert [ip_address("interface", text) for text in ("", "::1", "127.0.0.1")] == [
        *("", "::1", "127.0.0.1")
    ]
    with pytest.raises(ValueError, match=r"interface.*'localhost'"):
        ip_address("interface", "localhost")


@pytest.mark.parametrize(
    ("endpoint", "parts"),
    [
        ("tcp:5027", ("tcp", ["5027"], {})),
        ("tcp:5027:127.0.0.1", ("tcp", ["5027", "127.0.0.1"], {})),
        ("tcp:port=5027", ("tcp", [], {"port": "5027"})),
        (
            "udp:5027:interface=127.0.0.1",
            ("udp", ["5027"], {"interface": "127.0.0.1"}),
        ),
        (r"tcp:5027:interface=\:\:1", ("tcp", ["5027"], {"interface": "::1"})),
        (r"udp:5027:\:\:1", ("udp", ["5027", "::1"], {})),
        (
            "ssl:5027:privateKey=/k=1.pem:certKey=/c.pem",
            ("ssl", ["5027"], {"privateKey": "/k=1.pem", "certKey": "/c.pem"}),
        ),
        ("udp:", ("udp", [""], {})),
        ("udp", ("udp", [], {})),
        ("", ("", [], {})),
    ],
)
def test_endpoint_string_is_split(
    endpoint: str, parts: tuple[str, list[str], dict[str, str]]
) -> None:
    assert split(endpoint) == parts
