"""The share of connections that one address may hold open."""

from __future__ import annotations

import pytest

from tracker.net.shares import AddressShares, address_group

HOST, OTHER = "192.0.2.1", "192.0.2.2"


def test_an_address_is_refused_beyond_its_share_and_others_are_not() -> None:
    shares = AddressShares(2)
    assert [shares.take(HOST) for _ in range(3)] == [True, True, False]
    assert shares.take(OTHER)


def test_a_closed_connection_frees_its_place() -> None:
    shares = AddressShares(1)
    assert shares.take(HOST)
    shares.release(HOST)
    assert shares.take(HOST)
    assert not shares.take(HOST)


def test_addresses_with_no_share_left_are_counted() -> None:
    shares = AddressShares(2)
    seen = []
    for host in (HOST, OTHER, HOST, HOST, OTHER):
        shares.take(host)
        seen.append(shares.used_up)
    for host in (HOST, HOST, OTHER, OTHER):
        shares.release(host)
        seen.append(shares.used_up)
    assert seen == [0, 0, 1, 1, 2, 1, 1, 0, 0]


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
def test_addresses_of_one_customer_are_counted_together(host: str, group: str) -> None:
    assert address_group(host) == group
