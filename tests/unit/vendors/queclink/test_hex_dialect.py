"""Conversations of devices that use the HEX encoding."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.queclink.conversation import talk
from tests.unit.vendors.queclink.golden_hex import (
    ACK_NAMED,
    FRI_GB100,
    FRI_GV300CAN,
    HBD_GV300CAN,
    INF_NAMED,
)
from tests.unit.vendors.queclink.hexencoding import encode_hex_answer, encode_hex_fri
from tests.unit.vendors.queclink.test_hex_frames import SENDER
from tracker.interfaces import Rejection, Traffic
from tracker.limits import Limits
from tracker.vendors.queclink.encoding import Place
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.queclink.vendor import Queclink

ADDRESS = ("192.0.2.7", 40_001)
PLACES = [Place(1_710_504_600 + one, 2.35, 48.85) for one in range(3)]


def test_hex_report_is_acknowledged_once_all_its_positions_are_appended() -> None:
    device = talk()
    device.send(encode_hex_fri(SENDER, PLACES))
    assert len(device.gateway.published[0][0]) == 3
    assert device.received() == b""
    device.confirm()
    assert device.received() == b"+SACK:11F0$"


def test_hex_frame_without_an_imei_belongs_to_the_device_of_its_connection() -> None:
    device = talk()
    device.send(FRI_GB100.data + INF_NAMED.data)
    assert [entries[0].device_id for entries, _ in device.gateway.published] == [
        FRI_GB100.device_id,
        FRI_GB100.device_id,
    ]


def test_hex_frame_without_an_imei_is_rejected_on_a_new_connection() -> None:
    device = talk()
    device.send(INF_NAMED.data)
    assert device.gateway.kinds == [Rejection.LOGIN]
    assert device.gateway.published == []
    assert device.received() == b""
    assert not device.closed


def test_hex_heartbeat_is_answered() -> None:
    device = talk()
    device.send(HBD_GV300CAN.data)
    assert device.received() == b"+SACK:GTHBD,,0455$"
    assert device.events_of("login") == [("login", HBD_GV300CAN.device_id)]


def test_hex_frames_of_several_devices_may_share_a_connection() -> None:
    device = talk()
    device.gateway.confirms_immediately = True
    device.send(FRI_GB100.data + FRI_GV300CAN.data)
    assert device.received() == FRI_GB100.ack + FRI_GV300CAN.ack
    assert [event[1] for event in device.events_of("login")] == [
        FRI_GB100.device_id,
        FRI_GV300CAN.device_id,
    ]


def test_hex_answer_has_the_serial_of_its_command() -> None:
    device = talk(settings=QueclinkSettings(password_file={"*": "gb100"}))
    device.send(FRI_GB100.data)
    frame = device.protocol.command_frame(FRI_GB100.device_id, b"GTRTO=,1,,,,,,", "")
    device.protocol.write_command(frame.data)
    device.send(encode_hex_answer(SENDER, 16, frame.token))
    ((_, answer),) = device.events_of("answered")
    assert (answer.codec, answer.token) == (frame.codec, frame.token)


def test_hex_datagram_is_acknowledged_once_it_is_appended() -> None:
    gateway, clock, transport = FakeGateway(), Clock(), FakeDatagramTransport()
    port = Queclink().buildDatagramProtocol(gateway, Limits(), clock, QueclinkSettings())
    port.makeConnection(transport)
    port.datagramReceived(ACK_NAMED.data, ADDRESS)
    assert gateway.kinds == [Rejection.LOGIN]
    port.datagramReceived(FRI_GB100.data, ADDRESS)
    assert transport.written == []
    gateway.published[0][1].callback(None)
    clock.advance(0)
    assert transport.written == [(FRI_GB100.ack, ADDRESS)]


def test_hex_frame_is_described_with_its_records() -> None:
    described = Queclink().describe(FRI_GB100.data, Traffic.RECEIVED)
    assert (described["report"], described["header"]) == ("GTFRI", "+RSP")
    assert described["records"][0]["device_id"] == FRI_GB100.device_id
    json.dumps(described)
