"""Endpoint strings that are completed, and addresses that people read."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tracker.endpoints import readable, with_default


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
