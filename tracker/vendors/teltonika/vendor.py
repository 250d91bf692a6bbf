"""Teltonika as a plugin sees it."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import DatagramProtocol
from twisted.plugin import IPlugin
from zope.interface import implementer

from tracker.interfaces import IGateway, IVendor
from tracker.limits import Limits
from tracker.vendors.teltonika.datagram_protocol import TeltonikaDatagramProtocol
from tracker.vendors.teltonika.protocol import TeltonikaFactory


@implementer(IPlugin, IVendor)
class Teltonika:
    """The FMB, FMC, FMM, FMT and FT families, and what speaks like them."""

    name = "teltonika"

    def buildFactory(self, gateway: IGateway, limits: Limits, clock: Any) -> IProtocolFactory:
        """See :class:`tracker.interfaces.IVendor`."""
        return TeltonikaFactory(gateway, limits, clock)

    def buildDatagramProtocol(
        self, gateway: IGateway, limits: Limits, clock: Any
    ) -> DatagramProtocol:
        """See :class:`tracker.interfaces.IVendor`."""
        return TeltonikaDatagramProtocol(gateway, limits, clock)
