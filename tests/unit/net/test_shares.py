"""Limit of the connections of one address."""

from __future__ import annotations

import pytest

from tracker.net.shares import AddressShares, address_group

HOST, OTHER = "192.0.2.1", "192.0.2.2"


def test_limit_of_one_address_does_not_affect_others() -> None:
    shares = AddressShares(2)
    assert [shares.take(HOST) for _ in range(3)] == [True, True, False]
    assert shares.take(OTHER)


def test_released_connection_can_be_taken_again() -> None:
    shares = AddressShares(1)
    assert shares.take(HOST)
    shares.release(HOST)
    assert shares.take(HOST)
    assert not shares.take(HOST)


def test_addresses_at_their_limit_are_counted() -> None:
    shares = AddressShares(2)
    counts = []
    for host in (HOST, OTHER, HOST, HOST, OTHER):
        shares.take(host)
        counts.append(shares.used_up)
    for host in (HOST, HOST, OTHER, OTHER):
        shares.release(host)
        counts.append(shares.used_up)
    assert counts == [0, 0, 1, 1, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::"),
        ("2001:db8:0:0:ffff::2", "2001:db8::"),
        ("2001:db8:0:1::1", "2001:db8:0:1::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_addresses_of_one_network_share_a_group(host: str, group: str) -> None:
    assert address_group(host) == group
