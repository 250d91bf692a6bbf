"""Sessions of devices that take commands as datagrams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.posts import ADDRESS, DEVICE, OTHER_ADDRESS, Port, PostDialect, post
from tracker.command import Answer, CommandFrame
from tracker.interfaces import Admission, ConnectionEnded, IConnection, NotAppended, Traffic
from tracker.limits import Limits
from tracker.vendors import sessions
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.dialect import CommandAnswer, DatagramStep, OpenedDatagram, Reply
from tracker.vendors.sessions import DatagramSession


class CommandedPostDialect(PostDialect):
    """Devices that take commands, answer with ``=``, and send ``beat`` and ``quiet``."""

    takes_commands: ClassVar[bool] = True

    def handle(self, opened: OpenedDatagram, now: float) -> Sequence[DatagramStep]:
        text = opened.data.decode()
        if text.startswith("="):
            return [CommandAnswer(Answer("post", text[1:]))]
        if text in ("beat", "quiet"):
            return [Reply(b"heard" if text == "beat" else b"")]
        return super().handle(opened, now)

    def command(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        if codec not in ("", "post"):
            raise ValueError(f"unknown codec {codec}")
        return CommandFrame("post", device_id.encode() + b"<" + content, shown=b"***")


def build(gateway: FakeGateway, limits: Limits, clock: Clock) -> DatagramPort:
    return DatagramPort(gateway, limits, clock, CommandedPostDialect())


@pytest.fixture
def port() -> Port:
    port = Port(Limits(idle_timeout=600), build)
    port.gateway.confirms_immediately = True
    return port


def opened(port: Port) -> list[DatagramSession]:
    """Return the sessions that were opened, whether or not they have ended."""
    return [event[1] for event in port.gateway.events if event[0] == "session opened"]


def session_of(port: Port) -> DatagramSession:
    port.receive(post())
    (session,) = opened(port)
    verifyObject(IConnection, session)
    port.acks()
    return session


def write(session: DatagramSession, text: bytes = b"reboot", silence_limit: float = 0) -> list[Any]:
    """Write a command when it may be written; return a list that receives it, or an error."""
    results: list[Any] = []
    frame = session.command_frame(DEVICE, text, "")

    def free(_: None) -> None:
        session.write_command(frame.data, frame.shown)
        results.append(frame.data)

    session.when_free(silence_limit).addCallbacks(free, lambda no: results.append(no.type))
    return results


def ended(port: Port) -> int:
    return port.gateway.events.count(("closed",))


# Beginning and end.


@pytest.mark.parametrize("content", ["A B", "beat"])
def test_datagram_that_is_acknowledged_begins_a_session(port: Port, content: str) -> None:
    port.receive(post(records=content))
    (session,) = opened(port)
    assert (session.device_id, session.peer, session.host) == (
        DEVICE,
        "udp 192.0.2.7:40001",
        "192.0.2.7",
    )
    assert ended(port) == 0


def test_session_begins_only_after_the_append() -> None:
    port = Port(None, build)
    port.receive(post())
    assert opened(port) == []
    port.gateway.published[0][1].errback(NotAppended("stopping"))
    assert opened(port) == []


@pytest.mark.parametrize(
    "datagram", [b"nonsense", post(records="wrong"), post(records="=OK"), post(records="quiet")]
)
def test_other_datagrams_begin_no_session(port: Port, datagram: bytes) -> None:
    port.receive(datagram)
    assert opened(port) == []


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_device_that_is_not_served_has_no_session(port: Port, admission: Admission) -> None:
    port.gateway.admissions[DEVICE] = admission
    port.receive(post())
    port.receive(post(records="beat"))
    assert opened(port) == []


def test_device_that_is_refused_at_the_append_has_no_session() -> None:
    port = Port(None, build)
    port.receive(post())
    port.gateway.admissions[DEVICE] = Admission.LATER
    port.confirm()
    assert (len(port.protocol.sessions), ended(port)) == (0, 1)
    assert not port.clock.getDelayedCalls()


def test_vendor_without_commands_has_no_sessions() -> None:
    port = Port()
    port.gateway.confirms_immediately = True
    port.receive(post())
    assert opened(port) == []


def test_session_ends_after_the_idle_timeout(port: Port) -> None:
    session = session_of(port)
    port.clock.advance(500)
    port.receive(post(6))
    port.clock.advance(599)
    assert session.is_alive()
    port.clock.advance(1.1)
    assert (session.is_alive(), ended(port), len(port.protocol.sessions)) == (False, 1, 0)
    assert write(session) == [ConnectionEnded]
    assert not port.clock.getDelayedCalls()
    port.receive(post(7))
    assert len(opened(port)) == 2


def test_device_that_was_heard_longest_ago_loses_its_session(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    for device in ("a", "b", "a", "c"):
        port.receive(post(len(port.gateway.events), device=device))
    assert [(one.device_id, one.is_alive()) for one in opened(port)] == [
        ("a", True),
        ("b", False),
        ("c", True),
    ]


@pytest.mark.parametrize("how", ["close", "retire", "log_out", "withdraw", "stop"])
def test_session_ends_once(port: Port, how: str) -> None:
    session = session_of(port)
    if how == "stop":
        port.protocol.stopProtocol()
    elif how in ("log_out", "withdraw"):
        getattr(session, how)(DEVICE)
    else:
        getattr(session, how)()
    session.close()
    assert (session.is_alive(), ended(port), len(port.protocol.sessions)) == (False, 1, 0)
    assert not port.clock.getDelayedCalls()


# Commands.


def test_command_is_one_datagram_to_the_last_address(port: Port) -> None:
    session = session_of(port)
    assert write(session) == [b"device-1<reboot"]
    assert port.acks() == [(b"device-1<reboot", ADDRESS)]
    port.receive(post(6), OTHER_ADDRESS)
    port.acks()
    write(session)
    assert port.acks() == [(b"device-1<reboot", OTHER_ADDRESS)]
    assert opened(port) == [session]


def test_repeated_datagram_moves_the_session_to_its_address(port: Port) -> None:
    session = session_of(port)
    port.receive(post(), OTHER_ADDRESS)
    assert session.source == OTHER_ADDRESS


def test_command_waits_for_a_device_that_may_not_listen(port: Port) -> None:
    session = session_of(port)
    port.clock.advance(60)
    results = write(session, silence_limit=60)
    assert results == []
    port.receive(post(records="beat"), OTHER_ADDRESS)
    assert results == [b"device-1<reboot"]
    assert port.acks()[-1] == (b"device-1<reboot", OTHER_ADDRESS)


def test_command_that_waits_fails_when_the_session_ends(port: Port) -> None:
    session = session_of(port)
    port.clock.advance(60)
    results = write(session, silence_limit=60)
    session.close()
    assert results == [ConnectionEnded]


def test_unknown_codec_of_a_command_is_refused(port: Port) -> None:
    with pytest.raises(ValueError, match="14"):
        session_of(port).command_frame(DEVICE, b"reboot", "14")


def test_answer_counts_only_from_the_address_of_the_command(port: Port) -> None:
    session = session_of(port)
    port.receive(post(records="=early"))
    write(session)
    port.receive(post(6), OTHER_ADDRESS)  # moves the session, but not the command
    port.receive(post(records="=forged"), OTHER_ADDRESS)
    assert [event[0] for event in port.gateway.events[-1:]] == ["noticed"]
    port.receive(post(records="=OK"))
    answers = [event[1].text for event in port.gateway.events if event[0] == "answered"]
    assert answers == ["OK"]


def test_answer_of_a_device_without_a_session_is_ignored(port: Port) -> None:
    port.receive(post(records="=OK"))
    assert port.gateway.events == []


# Figures and observers.


def test_figures_count_the_datagrams_of_the_session(port: Port) -> None:
    session = session_of(port)
    port.clock.advance(5)
    port.receive(post(6, "A"))
    figures = session.figures()
    assert (figures.since, figures.last_heard) == (0, 5)
    assert (figures.codec, figures.records, figures.bytes) == ("lines", 3, len(b"A BA"))


def test_observer_sees_datagrams_and_no_secret(port: Port) -> None:
    seen: list[tuple[Traffic, bytes]] = []
    session = session_of(port)
    session.observe(lambda *what: seen.append(what))
    port.receive(post(6))
    write(session)
    assert seen == [
        (Traffic.RECEIVED, b"A B"),
        (Traffic.SENT, b"6 2"),
        (Traffic.SENT, b"***"),
    ]
