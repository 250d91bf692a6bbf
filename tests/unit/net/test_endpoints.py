"""Arguments of endpoint strings, and addresses in log lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tracker.net.endpoints import (
    connecting_endpoint,
    ip_address,
    listening_endpoint,
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


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("5027", "tcp:5027"),
        ("tcp:5027", "tcp:5027"),
        ("5027:reuseport=1", "tcp:5027:reuseport=1"),
        ("tcp:5027:127.0.0.1", "tcp:5027:127.0.0.1"),
        ("localhost:5027", "tcp:5027:interface=127.0.0.1"),
        ("tcp:localhost:5027", "tcp:5027:interface=127.0.0.1"),
        ("192.0.2.1:5027:backlog=9", "tcp:5027:backlog=9:interface=192.0.2.1"),
        ("[::1]:5027", r"tcp:5027:interface=\:\:1"),
        ("udp:[::1]:5027", r"udp:5027:interface=\:\:1"),
        ("ssl:127.0.0.1:5028:privateKey=k", "ssl:5028:privateKey=k:interface=127.0.0.1"),
        ("haproxy:5027", "haproxy:tcp:5027"),
        ("/run/tracker/a:b.sock", r"unix:/run/tracker/a\:b.sock"),
        *((same, same) for same in ("unix:/x.sock", "tcp6:5027", "fd:3", "systemd:domain=INET")),
    ],
)
def test_address_to_listen_on_is_an_endpoint_string(text: str, endpoint: str) -> None:
    assert listening_endpoint(text) == endpoint
    assert listening_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("localhost:5027", "tcp:localhost:5027"),
        ("tcp:localhost:5027", "tcp:localhost:5027"),
        ("vm-1.example:5027", "tcp:vm-1.example:5027"),
        ("[::1]:5027", r"tcp:\:\:1:5027"),
        ("tcp:[::1]:5027", r"tcp:\:\:1:5027"),
        (r"tcp:\:\:1:5027", r"tcp:\:\:1:5027"),
        ("ssl:vm1:5091:name=x", "ssl:vm1:5091:name=x"),
        ("/run/x.sock", "unix:/run/x.sock"),
        *((same, same) for same in ("unix:/x.sock", "tls:vm1:5028:trustRoots=a")),
    ],
)
def test_address_to_connect_to_is_an_endpoint_string(text: str, endpoint: str) -> None:
    assert connecting_endpoint(text) == endpoint
    assert connecting_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    "text", ["", ":", "localhost", "localhost:", "vm1:http", "::1:5027", "a b:1"]
)
def test_text_that_is_no_address_is_refused_with_examples(text: str) -> None:
    for read in (listening_endpoint, connecting_endpoint):
        with pytest.raises(ValueError, match=r"must be like .*\[::1\]:5027 or unix:PATH, not "):
            read(text)


def test_host_to_listen_on_is_an_ip_address() -> None:
    with pytest.raises(ValueError, match="must be an IP address, not 'vm1'"):
        listening_endpoint("vm1:5027")


@pytest.mark.parametrize("text", ["5027", "tcp:5027"])
def test_address_to_connect_to_has_a_host(text: str) -> None:
    with pytest.raises(ValueError, match="the host is missing; write it like localhost:5027"):
        connecting_endpoint(text)


@given(st.ip_addresses().map(str), st.integers(0, 65_535), st.sampled_from(["", "tcp:"]))
def test_address_of_any_host_has_one_endpoint_string(host: str, port: int, kind: str) -> None:
    text = f"{kind}[{host}]:{port}" if ":" in host else f"{kind}{host}:{port}"
    _, positional, named = split(listening_endpoint(text))
    assert (positional, named) == ([str(port)], {"interface": host})
    assert split(connecting_endpoint(text)) == ("tcp", [host, str(port)], {})


@given(st.text(alphabet="tcpudslx015.:=[]/\\ ", max_size=30))
def test_any_text_is_an_endpoint_string_or_refused_in_one_line(text: str) -> None:
    for read in (listening_endpoint, connecting_endpoint):
        try:
            endpoint = read(text)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - most texts are refused
        else:
            assert read(endpoint) == endpoint
