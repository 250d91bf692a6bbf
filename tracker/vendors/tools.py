"""Tools that a vendor object may provide: interfaces that are optional beside ``IVendor``.

Their methods import the tools, so that roles that serve devices do not load them.
"""

from __future__ import annotations

from zope.interface import Interface

from tracker.interfaces import IVendor
from tracker.vendors.inspection import Decoder, Encoder
from tracker.vendors.simulation import Simulation


class IDecodable(Interface):
    """A vendor whose bytes can be shown."""

    def buildDecoder() -> Decoder:
        """Return the decoder of the vendor's bytes."""


class IEncodable(Interface):
    """A vendor whose bytes can be made of documents."""

    def buildEncoder() -> Encoder:
        """Return the encoder of the vendor's documents."""


class ISimulated(Interface):
    """A vendor whose devices can be simulated."""

    def buildSimulation() -> Simulation:
        """Return the simulation of the vendor's devices."""


def decoder_of(vendor: IVendor) -> Decoder | None:
    """Return the decoder of a vendor; None if it has none."""
    return IDecodable(vendor).buildDecoder() if IDecodable.providedBy(vendor) else None


def encoder_of(vendor: IVendor) -> Encoder | None:
    """Return the encoder of a vendor; None if it has none."""
    return IEncodable(vendor).buildEncoder() if IEncodable.providedBy(vendor) else None


def simulation_of(vendor: IVendor) -> Simulation | None:
    """Return the simulation of a vendor's devices; None if it has none."""
    return ISimulated(vendor).buildSimulation() if ISimulated.providedBy(vendor) else None
