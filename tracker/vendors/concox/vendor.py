"""The Concox plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.plugin import IPlugin
from zope.interface import implementer

from tracker.imei import IMEI_FORM, IMEI_PATTERN, checked_imei
from tracker.interfaces import IGateway, IVendor, Traffic
from tracker.limits import Limits
from tracker.vendors.concox.commands import COMMAND_CODECS, Flags
from tracker.vendors.concox.description import describe
from tracker.vendors.concox.dialect import ConcoxDialect
from tracker.vendors.concox.positions import CODEC
from tracker.vendors.concox.settings import ConcoxSettings
from tracker.vendors.connection import ConnectionFactory
from tracker.vendors.inspection import Decoder, Encoder
from tracker.vendors.simulation import Simulation
from tracker.vendors.tools import IDecodable, IEncodable, ISimulated


@implementer(IPlugin, IVendor, IDecodable, IEncodable, ISimulated)
class Concox:
    """Devices of Concox and Jimi IoT, and others that speak the GT06 protocol."""

    name = "concox"
    settings = ConcoxSettings
    codecs = frozenset({CODEC})
    command_codecs = COMMAND_CODECS
    transports = frozenset({"tcp"})
    device_id_form = IMEI_FORM
    device_id_pattern = IMEI_PATTERN

    def device_id(self, text: str) -> str:
        """See :class:`tracker.interfaces.IVendor`."""
        return checked_imei(text)

    def buildFactory(
        self,
        gateway: IGateway,
        limits: Limits,
        clock: IReactorTime,
        settings: ConcoxSettings | None = None,
    ) -> ConnectionFactory:
        """See :class:`tracker.interfaces.IVendor`."""
        chosen = settings or ConcoxSettings()
        flags = Flags(int(clock.seconds()))

        def build_dialect() -> ConcoxDialect:
            return ConcoxDialect(limits, chosen, flags, gateway.tally.count_truncated)

        return ConnectionFactory(gateway, limits, clock, build_dialect)

    def buildDatagramProtocol(
        self, gateway: IGateway, limits: Limits, clock: IReactorTime, settings: Any
    ) -> DatagramProtocol:
        """See :class:`tracker.interfaces.IVendor`; not called, as the transports have no UDP."""
        raise NotImplementedError("Concox devices use TCP")

    def describe(self, data: bytes, kind: Traffic) -> dict[str, Any]:
        """See :class:`tracker.interfaces.IVendor`."""
        return describe(data, kind is Traffic.SENT)

    def buildNaming(self, models: Mapping[str, Path], default_model: str | None = None) -> None:
        """See :class:`tracker.interfaces.IVendor`; the attributes have names already."""

    def buildDecoder(self) -> Decoder:
        """See :class:`tracker.vendors.tools.IDecodable`."""
        from tracker.vendors.concox.inspection import ConcoxDecoder

        return ConcoxDecoder()

    def buildEncoder(self) -> Encoder:
        """See :class:`tracker.vendors.tools.IEncodable`."""
        from tracker.vendors.concox.inspection import ConcoxEncoder

        return ConcoxEncoder()

    def buildSimulation(self) -> Simulation:
        """See :class:`tracker.vendors.tools.ISimulated`."""
        from tracker.vendors.concox.simulation import ConcoxSimulation

        return ConcoxSimulation()
