"""Endpoint strings that are completed, and addresses that people read."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tracker.net.endpoints import ip_address, named, no_more, number, readable, with_default


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
def test_an_argument_is_added_to_a_tcp_endpoint_that_lacks_it(endpoint: str, expected: str) -> None:
    assert with_default(endpoint, {"tcp": 3}, "backlog", 1024) == expected


def test_the_place_of_an_argument_without_its_name_is_a_parameter() -> None:
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
def test_an_address_is_written_as_people_read_it(address: object, text: str) -> None:
    assert readable(address) == text


def test_arguments_are_had_by_name_however_they_were_given() -> None:
    assert named("udp:5027:127.0.0.1", ("port", "interface")) == named(
        "udp:interface=127.0.0.1:port=5027", ("port", "interface")
    )
    assert named(r"unix:/run/a\:b.sock:mode=0660", ("path",)) == {
        "path": "/run/a:b.sock",
        "mode": "0660",
    }
    assert named("ssl:5099:privateKey=a=b", ("port",)) == {"port": "5099", "privateKey": "a=b"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "udp:5027:127.0.0.1",
        "udp:5027:port=5028",
        "udp:interface=127.0.0.1:interface=127.0.0.2",
    ],
)
def test_an_argument_is_given_once_and_has_a_place(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"port|interface|arguments"):
        named(endpoint, ("port",))


def test_arguments_that_nobody_knows_are_told() -> None:
    no_more({}, ("port", "mode"))
    with pytest.raises(ValueError, match=r"'mood'.* port, mode"):
        no_more({"mood": "0660"}, ("port", "mode"))


@pytest.mark.parametrize("text", ["", "-1", "65536", "0x10", "5027.0", "²", "9" * 5000])
def test_what_is_no_port_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        number("port", text)


def test_an_address_is_one_of_ip_or_left_out() -> None:
    assert [ip_address("interface", text) for text in ("", "::1", "127.0.0.1")] == [
        *("", "::1", "127.0.0.1")
    ]
    with pytest.raises(ValueError, match=r"interface.*'localhost'"):
        ip_address("interface", "localhost")
