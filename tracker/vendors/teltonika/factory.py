"""The factory of Teltonika's connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from tracker.interfaces import IGateway
from tracker.limits import Limits
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.leftovers import Leftovers
from tracker.vendors.teltonika.protocol import TeltonikaProtocol
from tracker.vendors.throttle import Workload


class TeltonikaFactory(Factory):
    """Builds a :class:`TeltonikaProtocol` for each connection of a port."""

    noisy = False

    def __init__(self, gateway: IGateway, limits: Limits, clock: Any) -> None:
        self._gateway = gateway
        self._workload = Workload(clock, limits, gateway.tally)
        self._layouts = Layouts()
        self._leftovers = Leftovers(self._workload, gateway)

    def buildProtocol(self, addr: IAddress | None) -> TeltonikaProtocol | None:
        """Return the protocol of a new connection; None to close it unread."""
        if not self._gateway.admits(addr):
            return None
        return TeltonikaProtocol(self._gateway, self._workload, self._layouts, self._leftovers)
