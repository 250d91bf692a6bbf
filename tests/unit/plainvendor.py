"""A second vendor, for what depends on the vendors that are installed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol, Factory
from zope.interface import implementer

from tracker.interfaces import IGateway, INaming, IVendor, Traffic
from tracker.limits import Limits
from tracker.settings import duration, file, parsed
from tracker.vendors import installed


def read_zone(text: str) -> int:
    """Return minutes east of UTC."""
    if not text.startswith(("+", "-")):
        raise ValueError(f"must be like +02:00, not {text!r}")
    hours, _, minutes = text[1:].partition(":")
    return int(f"{text[0]}{int(hours) * 60 + int(minutes)}")


@frozen
class PlainSettings:
    """Settings of each kind."""

    zone: int = parsed("+00:00", read_zone, "Zone of the devices' clocks, such as +02:00.")
    settle_time: float = duration(5, 0, 60, "Time after a login in which no command is sent.")
    password_file: str | None = file(str.strip, "File with the password of the devices.")


@implementer(IVendor)
@define(eq=False)
class PlainVendor:
    """A vendor with settings and without datagrams, names and commands."""

    name: str = "acme"
    settings: type[Any] | None = PlainSettings
    codecs: frozenset[str] = frozenset({"plain"})
    command_codecs: tuple[str, ...] = ()
    transports: frozenset[str] = frozenset({"tcp"})
    device_id_form: str = "4 hex digits"
    device_id_pattern: str = "[0-9A-Fa-f]{4}"
    built: Any = None
    """The settings that the last factory was built with."""

    def device_id(self, text: str) -> str:
        if not re.fullmatch(self.device_id_pattern, text):
            raise ValueError(f"must be {self.device_id_form}")
        return text.upper()

    def buildFactory(
        self, gateway: IGateway, limits: Limits, clock: IReactorTime, settings: Any
    ) -> Factory:
        self.built = settings
        return Factory()

    def buildDatagramProtocol(
        self, gateway: IGateway, limits: Limits, clock: IReactorTime, settings: Any
    ) -> DatagramProtocol:
        raise NotImplementedError

    def describe(self, data: bytes, kind: Traffic) -> dict[str, Any]:
        return {self.name: data.hex(), "kind": kind.value}

    def buildNaming(
        self, models: Mapping[str, Path], default_model: str | None = None
    ) -> INaming | None:
        return None


def install(monkeypatch: pytest.MonkeyPatch) -> PlainVendor:
    """Install the vendor, beside those that are installed, until the test ends."""
    vendor = PlainVendor()
    found = [*installed.installed_vendors().values(), vendor]
    monkeypatch.setattr(installed, "_plugins", lambda: found)
    return vendor
