"""Limit how many connections one address may hold open at a time."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

#: Bits of an IPv6 address that name a customer's network (RFC 6177). A customer can choose the
#: other bits freely, so a limit for single addresses would have no effect.
_NETWORK_BITS = 64


class AddressShares:
    """Count open connections by address.

    Memory is bounded by the number of open connections: an address without one is forgotten.

    :param limit: connections that one address may hold open.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used_up = 0
        """Number of addresses that hold their maximal number of connections."""
        self._open: dict[str, int] = {}

    def take(self, host: str) -> bool:
        """Count a new connection; return False, and count nothing, if the share is used up.

        :param host: an IPv4 or IPv6 address. Any other text, such as the empty one for a peer on
            a Unix socket, is counted as it is.
        """
        group = address_group(host)
        count = self._open.get(group, 0)
        if count >= self.limit:
            return False
        self._open[group] = count + 1
        self.used_up += count + 1 == self.limit
        return True

    def release(self, host: str) -> None:
        """Count a connection as closed that :meth:`take` has counted as open."""
        group = address_group(host)
        count = self._open[group] - 1
        self.used_up -= count + 1 == self.limit
        if count:
            self._open[group] = count
        else:
            del self._open[group]


def address_group(host: str) -> str:
    """Return the text by which an address is counted.

    That is the address itself for IPv4, also when written as an IPv4-mapped IPv6 address; the
    network of 64 bits for IPv6; and any other text unchanged.
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
