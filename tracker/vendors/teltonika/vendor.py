"""Teltonika as a plugin sees it."""

from __future__ import annotations

from twisted.internet.interfaces import IProtocolFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

from tracker.interfaces import IGateway, IVendor
from tracker.vendors.teltonika.limits import Limits
from tracker.vendors.teltonika.protocol import TeltonikaFactory


@implementer(IPlugin, IVendor)
class Teltonika:
    """The FMB, FMC, FMM, FMT and FT families, and what speaks like them."""

    name = "teltonika"

    def buildFactory(self, gateway: IGateway) -> IProtocolFactory:
        """See :class:`tracker.interfaces.IVendor`."""
        return TeltonikaFactory(gateway, Limits())
