"""The Queclink plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from zope.interface import implementer

from tracker.interfaces import IGateway, IVendor, Traffic
from tracker.limits import Limits
from tracker.vendors.connection import ConnectionFactory
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.inspection import Decoder, Encoder
from tracker.vendors.queclink.commands import COMMAND_CODECS
from tracker.vendors.queclink.datagram_dialect import QueclinkDatagramDialect
from tracker.vendors.queclink.description import describe
from tracker.vendors.queclink.dialect import QueclinkDialect
from tracker.vendors.queclink.hexrecords import HEX
from tracker.vendors.queclink.ids import DEVICE_ID, DEVICE_ID_FORM, checked_device_id
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.queclink.text import ASCII
from tracker.vendors.simulation import Simulation
from tracker.vendors.tools import IDecodable, IEncodable, ISimulated


@implementer(IPlugin, IVendor, IDecodable, IEncodable, ISimulated)
class Queclink:
    """Devices of the GL, GV, GMT, GB and CV families, and others with the @Track protocol."""

    name = "queclink"
    settings = QueclinkSettings
    codecs = frozenset((ASCII, HEX))
    command_codecs = COMMAND_CODECS
    transports = frozenset({"tcp", "udp"})
    device_id_form = DEVICE_ID_FORM
    device_id_pattern = DEVICE_ID.pattern

    def device_id(self, text: str) -> str:
        """See :class:`tracker.interfaces.IVendor`."""
        return checked_device_id(text)

    def buildFactory(
        self, gateway: IGateway, limits: Limits, clock: IReactorTime, settings: QueclinkSettings
    ) -> ConnectionFactory:
        """See :class:`tracker.interfaces.IVendor`."""

        def build_dialect() -> QueclinkDialect:
            return QueclinkDialect(limits, settings, gateway.tally.count_truncated)

        return ConnectionFactory(gateway, limits, clock, build_dialect)

    def buildDatagramProtocol(
        self, gateway: IGateway, limits: Limits, clock: IReactorTime, settings: QueclinkSettings
    ) -> DatagramPort:
        """See :class:`tracker.interfaces.IVendor`."""
        dialect = QueclinkDatagramDialect(limits, settings, gateway.tally.count_truncated)
        return DatagramPort(gateway, limits, clock, dialect)

    def describe(self, data: bytes, kind: Traffic) -> dict[str, Any]:
        """See :class:`tracker.interfaces.IVendor`."""
        return describe(data, kind is Traffic.SENT)

    def buildNaming(self, models: Mapping[str, Path], default_model: str | None = None) -> None:
        """See :class:`tracker.interfaces.IVendor`; the attributes have names already."""

    def buildDecoder(self) -> Decoder:
        """See :class:`tracker.vendors.tools.IDecodable`."""
        from tracker.vendors.queclink.inspection import QueclinkDecoder

        return QueclinkDecoder()

    def buildEncoder(self) -> Encoder:
        """See :class:`tracker.vendors.tools.IEncodable`."""
        from tracker.vendors.queclink.inspection import QueclinkEncoder

        return QueclinkEncoder()

    def buildSimulation(self) -> Simulation:
        """See :class:`tracker.vendors.tools.ISimulated`."""
        from tracker.vendors.queclink.simulation import QueclinkSimulation

        return QueclinkSimulation()
