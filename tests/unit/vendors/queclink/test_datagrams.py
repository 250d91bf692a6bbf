"""Datagrams of devices at a UDP port, and their replies."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.unit.fakes import FakeGateway
from tests.unit.vendors import posts
from tests.unit.vendors.posts import ADDRESS
from tests.unit.vendors.queclink.conversation import (
    DEVICE,
    OTHER,
    answer,
    fri,
    heartbeat,
    information,
)
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.dialect import Append, CommandAnswer, ProtocolError
from tracker.vendors.queclink.datagram_dialect import MAX_FRAMES, QueclinkDatagramDialect
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.queclink.vendor import Queclink


def port(settings: QueclinkSettings | None = None) -> posts.Port:
    def build(gateway: FakeGateway, limits: Limits, clock: Clock) -> DatagramPort:
        chosen = settings or QueclinkSettings()
        return Queclink().buildDatagramProtocol(gateway, limits, clock, chosen)

    return posts.Port(None, build)


def steps_of(data: bytes) -> list[object]:
    dialect = QueclinkDatagramDialect(Limits(), QueclinkSettings(), lambda: None)
    opened = dialect.open(data)
    assert isinstance(opened, Decoded)
    return list(dialect.handle(opened.value, 1_700_000_000.0))


def test_report_is_acknowledged_once_it_is_appended() -> None:
    udp = port()
    udp.receive(fri())
    assert udp.acks() == []
    udp.confirm()
    assert udp.acks() == [(b"+SACK:11F0$", ADDRESS)]


def test_repeated_report_is_acknowledged_again_and_appended_once() -> None:
    udp = port()
    udp.receive(fri())
    udp.confirm()
    udp.receive(fri())
    assert [data for data, _ in udp.acks()] == [b"+SACK:11F0$"] * 2
    assert udp.published == 1


def test_heartbeat_over_udp_is_answered_at_once() -> None:
    udp = port()
    udp.receive(heartbeat())
    assert udp.acks() == [(b"+SACK:GTHBD,1A0102,11F0$", ADDRESS)]
    assert udp.published == 0


def test_several_reports_of_a_datagram_are_one_append_with_all_acks() -> None:
    udp = port()
    udp.receive(fri(count=1) + b"\r\n" + information(2) + heartbeat(count=3))
    udp.confirm()
    assert [data for data, _ in udp.acks()] == [b"+SACK:0001$+SACK:0002$+SACK:GTHBD,1A0102,0003$"]
    assert [len(entries) for entries, _ in udp.gateway.published] == [2]


def test_report_over_udp_is_not_acknowledged_if_the_setting_is_never() -> None:
    udp = port(QueclinkSettings(sack=False))
    udp.receive(fri())
    udp.confirm()
    assert udp.acks() == []
    udp.receive(heartbeat())
    assert len(udp.acks()) == 1


def test_frames_of_another_device_in_a_datagram_are_not_read() -> None:
    error, append = steps_of(fri(DEVICE, 1) + fri(OTHER, 2))
    assert isinstance(error, ProtocolError)
    assert error.kind is Rejection.LOGIN
    assert isinstance(append, Append)
    assert append.ack == b"+SACK:0001$"
    assert {entry.device_id for entry in append.entries} == {DEVICE}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Rejection.LENGTH),
        (b"\r\n", Rejection.LENGTH),
        (fri()[:-1], Rejection.LENGTH),
        (b"hello", Rejection.LENGTH),
        (b"hello$", Rejection.PREAMBLE),
        (b"+RESP:GTFRI,060100,1,,$", Rejection.CONTENT),
    ],
)
def test_datagram_without_a_whole_first_frame_is_rejected(data: bytes, kind: Rejection) -> None:
    udp = port()
    udp.receive(data)
    assert (udp.gateway.kinds, udp.published, udp.acks()) == ([kind], 0, [])


def test_whole_frames_before_a_cut_one_are_kept() -> None:
    error, append = steps_of(fri(count=1) + fri(count=2)[:-1])
    assert isinstance(error, ProtocolError)
    assert isinstance(append, Append)
    assert append.ack == b"+SACK:0001$"


def test_number_of_frames_in_a_datagram_is_limited() -> None:
    *_, append = steps_of(heartbeat() * (MAX_FRAMES - 1) + fri(count=1) + fri(count=2))
    assert isinstance(append, Append)
    assert len(append.entries) == 1


def test_answer_over_udp_may_be_that_to_a_command() -> None:
    found, append = steps_of(answer("000B"))
    assert isinstance(found, CommandAnswer)
    assert found.answer.token == "000B"
    assert isinstance(append, Append)


def test_command_over_udp_has_the_form_of_one_over_tcp() -> None:
    settings = QueclinkSettings(password_file={"*": "pass"})
    dialect = QueclinkDatagramDialect(Limits(), settings, lambda: None)
    frame = dialect.command(DEVICE, b"GTRTO=,1,,,,,,", "")
    assert frame.data == f"AT+GTRTO=pass,1,,,,,,{frame.token}$".encode()
    assert dialect.takes_commands
