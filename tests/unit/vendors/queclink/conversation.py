"""Conversations of Queclink devices with a connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.talk import Talk
from tracker.limits import Limits
from tracker.vendors.connection import ConnectionFactory
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.queclink.vendor import Queclink

DEVICE = "135790246811220"
OTHER = "862894020180553"


def fri(device_id: str = DEVICE, count: int = 0x11F0, header: str = "+RESP") -> bytes:
    """Return a report with one position."""
    return (
        f"{header}:GTFRI,060100,{device_id},,,00,1,1,4.3,92,70.0,121.354335,31.222073,"
        f"20090214013254,0460,0000,18d8,6141,00,2000.0,,,,80,210100,,,,20090214093254,{count:04X}$"
    ).encode()


def heartbeat(device_id: str = DEVICE, count: int = 0x11F0) -> bytes:
    return f"+ACK:GTHBD,1A0102,{device_id},,20100214093254,{count:04X}$".encode()


def answer(serial: str, device_id: str = DEVICE) -> bytes:
    return f"+ACK:GTRTO,1A0102,{device_id},,RTL,{serial},20100310172830,0100$".encode()


def information(count: int, device_id: str = DEVICE) -> bytes:
    """Return a message."""
    return f"+RESP:GTCSQ,1A0102,{device_id},,21,0,20100310172830,{count:04X}$".encode()


def talk(
    settings: QueclinkSettings | None = None, limits: Limits | None = None, **kwargs: Any
) -> Talk:
    def build(gateway: FakeGateway, limits: Limits, clock: Clock) -> ConnectionFactory:
        chosen = settings or QueclinkSettings()
        return Queclink().buildFactory(gateway, limits, clock, chosen)

    return Talk(build, limits, **kwargs)
