"""Samples of a vendor's protocol, with which the contract suite tests the vendor.

The suite takes them from the module ``samples_NAME`` of a vendor NAME: in this folder, or, for a
vendor with a repository of its own, anywhere on ``PYTHONPATH``. The module has a constant
``SAMPLES``, and may have ``OTHERS``, by a name, for a second encoding of the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from attrs import field, frozen

from tracker.interfaces import IVendor


@frozen(kw_only=True)
class Samples:
    """The frames of one device, and the replies that it expects."""

    device_id: str
    """ID of the device, as the entries have it."""
    login: bytes = b""
    """The login; empty if each frame names its device."""
    record: bytes
    """A frame with records."""
    entries: int
    """Number of entries of ``record``."""
    ack: bytes = b""
    """All bytes that the device hears once the entries of ``record`` are durable; may be empty."""
    repetition: bytes
    """The same records as ``record``, in the form in which the device sends them again."""
    never_repeated: bytes
    """A frame with one entry that the device sends only once, whatever it hears."""
    fence: bytes = b""
    """A frame whose reply tells the device that all earlier records are durable; empty if the
    protocol has none."""
    fence_reply: bytes = b""
    bad: bytes
    """``record`` with one wrong byte, which the protocol detects."""
    command: bytes = b""
    """Content of a command, as people write it; empty without commands."""
    answer: Callable[[bytes], bytes] | None = None
    """Returns the device's answer to the bytes of the command."""
    datagram: bytes = b""
    """A datagram with records; empty without datagrams."""
    datagram_ack: bytes = b""
    """The reply once they are durable."""
    same_ids: tuple[str, ...] = ()
    """The device ID in other spellings that people may use."""
    wrong_ids: tuple[str, ...] = field(default=("", "x", "12 34", "1" * 40, "1\n"))
    """Texts that are no device ID of this vendor."""
    settings: dict[str, Any] = field(factory=dict)
    """Settings of the vendor that differ from their defaults."""


class NoSamples(Exception):
    """A vendor is installed, but the suite has no samples of its protocol."""


def load_samples(vendor: IVendor) -> dict[str, Samples]:
    """Return the samples of a vendor: name of the encoding, empty for the usual one → samples.

    :raises NoSamples: if they are missing. The message says what to write.
    """
    name = f"samples_{vendor.name}"
    for module in (f"tests.vendors.{name}", name):
        if find_spec(module) is not None:
            found = import_module(module)
            samples = getattr(found, "SAMPLES", None)
            if isinstance(samples, Samples):
                return {"": samples, **getattr(found, "OTHERS", {})}
            raise NoSamples(f"{module} has no SAMPLES = Samples(…); see tests/vendors/samples.py")
    raise NoSamples(
        f"the vendor {vendor.name!r} is installed, but has no samples: write {name}.py with "
        "SAMPLES = Samples(…), in tests/vendors or on PYTHONPATH; see tests/vendors/samples.py"
    )
