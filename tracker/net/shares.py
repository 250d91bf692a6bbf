"""Limit of the connections that one address may hold open."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

#: Bits of an IPv6 address that name a customer's network (RFC 6177). The customer chooses the
#: other bits freely, which would make a limit for single addresses useless.
_NETWORK_BITS = 64


class AddressShares:
    """Counts open connections by address.

    Only addresses with open connections are stored.

    :param limit: connections that one address may hold open.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used_up = 0
        """Number of addresses that have reached the limit."""
        self._open: dict[str, int] = {}

    def take(self, host: str) -> bool:
        """Count a new connection. Return False, without counting it, if the limit is reached.

        :param host: an IPv4 or IPv6 address. Any other text, such as the empty one for a peer on
            a Unix socket, is a group of its own.
        """
        group = address_group(host)
        count = self._open.get(group, 0)
        if count >= self.limit:
            return False
        self._open[group] = count + 1
        self.used_up += count + 1 == self.limit
        return True

    def release(self, host: str) -> None:
        """Uncount a closed connection that :meth:`take` has counted."""
        group = address_group(host)
        count = self._open[group] - 1
        self.used_up -= count + 1 == self.limit
        if count:
            self._open[group] = count
        else:
            del self._open[group]


def address_group(host: str) -> str:
    """Return the group under which an address is counted.

    It is the address itself for IPv4 (also for an IPv4-mapped IPv6 address), the /64 network for
    IPv6, and any other text unchanged.
    """
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    assert isinstance(address, IPv6Address)  # noqa: S101 - it has a colon
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))
