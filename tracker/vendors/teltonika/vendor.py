"""The Teltonika plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from zope.interface import classImplements, implementer

from tracker.imei import IMEI_FORM, IMEI_PATTERN, checked_imei
from tracker.interfaces import IGateway, INaming, IVendor, Traffic, UnknownModel
from tracker.limits import Limits
from tracker.vendors.connection import ConnectionFactory
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.inspection import Decoder, Encoder
from tracker.vendors.simulation import Simulation
from tracker.vendors.teltonika.commands import COMMAND_CODECS
from tracker.vendors.teltonika.content import ENTRY_CODECS
from tracker.vendors.teltonika.datagram_dialect import TeltonikaDatagramDialect
from tracker.vendors.teltonika.description import describe
from tracker.vendors.teltonika.dialect import TeltonikaDialect
from tracker.vendors.teltonika.dictionary import read_file
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.naming import Naming, NoList
from tracker.vendors.tools import IDecodable, IEncodable, ISimulated

classImplements(Naming, INaming)


@implementer(IPlugin, IVendor, IDecodable, IEncodable, ISimulated)
class Teltonika:
    """Devices of the FMB, FMC, FMM, FMT and FT families, and others with the same protocol."""

    name = "teltonika"
    settings = None
    codecs = ENTRY_CODECS
    command_codecs = COMMAND_CODECS
    transports = frozenset({"tcp", "udp"})
    device_id_form = IMEI_FORM
    device_id_pattern = IMEI_PATTERN

    def device_id(self, text: str) -> str:
        """See :class:`tracker.interfaces.IVendor`."""
        return checked_imei(text)

    def buildFactory(
        self, gateway: IGateway, limits: Limits, clock: IReactorTime, settings: None = None
    ) -> ConnectionFactory:
        """See :class:`tracker.interfaces.IVendor`."""
        layouts = Layouts()

        def build_dialect() -> TeltonikaDialect:
            return TeltonikaDialect(limits, layouts, gateway.tally.count_truncated)

        return ConnectionFactory(gateway, limits, clock, build_dialect)

    def buildDatagramProtocol(
        self, gateway: IGateway, limits: Limits, clock: IReactorTime, settings: None = None
    ) -> DatagramPort:
        """See :class:`tracker.interfaces.IVendor`."""
        dialect = TeltonikaDatagramDialect(limits, Layouts(), gateway.tally.count_truncated)
        return DatagramPort(gateway, limits, clock, dialect)

    def describe(self, data: bytes, kind: Traffic) -> dict[str, Any]:
        """See :class:`tracker.interfaces.IVendor`."""
        return describe(data, kind is Traffic.SENT)

    def buildNaming(self, models: Mapping[str, Path], default_model: str | None = None) -> Naming:
        """See :class:`tracker.interfaces.IVendor`; files have the columns of ``avl_ids.csv``."""
        own = {model: read_file(file) for model, file in models.items()}
        try:
            return Naming(own, default_model)
        except NoList as error:
            raise UnknownModel(str(error)) from None

    def buildDecoder(self) -> Decoder:
        """See :class:`tracker.vendors.tools.IDecodable`."""
        from tracker.vendors.teltonika.inspection import TeltonikaDecoder

        return TeltonikaDecoder()

    def buildEncoder(self) -> Encoder:
        """See :class:`tracker.vendors.tools.IEncodable`."""
        from tracker.vendors.teltonika.inspection import TeltonikaEncoder

        return TeltonikaEncoder()

    def buildSimulation(self) -> Simulation:
        """See :class:`tracker.vendors.tools.ISimulated`."""
        from tracker.vendors.teltonika.simulation import TeltonikaSimulation

        return TeltonikaSimulation()
