"""Tests of waiting for a command's final response, and of finding commands."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.control.wire import DEVICE, OTHER, Client, PendingReply, Port
from tracker.control.commands import (
    FINAL_STATUS_GRACE,
    CommandStatus,
    NoSuchCommand,
    RedisUnavailable,
    SendCommand,
)
from tracker.control.operations import POLL_INTERVAL
from tracker.keys import outbound, waiting_commands

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
AT = "2026-11-22T10:00:00.000Z"


def begin(port: Port, client: Client, **options: Any) -> PendingReply:
    """Send a command that waits for its device, and for its final response."""
    port.redis.replies |= {"EVALSHA": [b"waits", b""], "ZRANGEBYSCORE": []}
    asked = client.begin(
        SendCommand, device_id=DEVICE, text="getinfo", command_id="c1", wait=True, **options
    )
    client.pump()
    return asked


def ends(port: Port, **final: str) -> None:
    """Store a final response of the command."""
    fields = {"command_id": "c1", "instance_id": "two", "at": AT} | final
    content = [part.encode() for pair in fields.items() for part in pair]
    port.redis.replies["GET"] = f"done {final['status']} 1-1".encode()
    port.redis.replies["XRANGE"] = [[b"1-1", content]]


def look(port: Port, client: Client) -> None:
    """Let the instance check once for the final response."""
    port.clock.advance(POLL_INTERVAL)
    client.pump()


@pytest.mark.parametrize(
    "final",
    [
        {"status": "responded", "response": "INI:2026/1/1 ü"},
        {"status": "rejected"},
        {"status": "failed", "reason": "timeout"},
        {"status": "failed", "reason": "disconnected"},
        {"status": "expired"},
    ],
    ids=lambda final: " ".join(final.values()),
)
def test_waiting_client_receives_the_final_response(
    port: Port, client: Client, final: dict[str, str]
) -> None:
    asked = begin(port, client)
    for value in (None, b"sent commands:outbound:two 1-1", b"delivered commands:outbound:two 1-1"):
        port.redis.replies["GET"] = value
        look(port, client)
        assert not asked.has_reply
    ends(port, **final)
    look(port, client)
    assert asked.result() == {
        "command_id": "c1",
        "instance_id": "two",
        "status": final["status"],
        "reason": final.get("reason"),
        "response": final.get("response"),
        "truncated": False,
        "at": AT,
        **dict.fromkeys(("expires_at", "text", "sender", "sent_at")),  # of an earlier version
    }
    assert port.timers == 0


def test_client_stops_waiting_when_the_command_is_overdue(port: Port, client: Client) -> None:
    asked = begin(port, client, expires_in=10.0, timeout=5.0)
    port.clock.advance(10 + 5 + FINAL_STATUS_GRACE)
    client.pump()
    assert not asked.has_reply
    # The command still waits in the stream of its device, because no janitor has expired it.
    port.redis.replies["HMGET"] = [None]
    port.redis.replies["XRANGE"] = [[b"1-1", [b"command_id", b"c1"]]]
    look(port, client)
    assert asked.result()["status"] == "waiting"
    assert port.timers == 0


def test_waiting_client_gets_an_error_if_the_command_disappears(port: Port, client: Client) -> None:
    asked = begin(port, client, expires_in=10.0, timeout=5.0)
    port.redis.replies |= {"HMGET": [None], "XRANGE": []}
    port.clock.advance(10 + 5 + FINAL_STATUS_GRACE)
    client.pump()
    look(port, client)
    assert isinstance(asked.error(), NoSuchCommand)
    assert port.timers == 0


def test_client_keeps_waiting_during_an_outage_of_redis(port: Port, client: Client) -> None:
    asked = begin(port, client)
    port.redis.connected = False
    for _ in range(10):
        look(port, client)
    assert not asked.has_reply
    port.redis.connected = True
    ends(port, status="responded", response="fine")
    look(port, client)
    assert asked.result()["response"] == "fine"


def test_status_is_returned_when_it_is_final_or_after_the_requested_time(
    port: Port, client: Client
) -> None:
    port.redis.replies |= {"HMGET": [None], "ZRANGEBYSCORE": []}
    holding(port, waiting_commands(DEVICE))
    about = {"command_id": "c1", "device_id": DEVICE}
    asked = client.begin(CommandStatus, **about, seconds=4.95)
    client.pump()
    for _ in range(49):
        look(port, client)
    assert not asked.has_reply
    look(port, client)
    assert asked.result()["status"] == "waiting"
    asked = client.begin(CommandStatus, **about, seconds=3600.0)
    client.pump()
    look(port, client)
    assert not asked.has_reply
    ends(port, status="expired")
    look(port, client)
    assert asked.result()["status"] == "expired"
    asked = client.begin(CommandStatus, **about, seconds=3600.0)
    client.pump()
    assert asked.result()["status"] == "expired"
    assert port.timers == 0


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_status_is_returned_at_once_without_a_time_to_wait(
    seconds: float, port: Port, client: Client
) -> None:
    port.redis.replies["HMGET"] = [None]
    holding(port, waiting_commands(DEVICE))
    reply = client.ask(CommandStatus, command_id="c1", device_id=DEVICE, seconds=seconds)
    assert reply["status"] == "waiting"
    assert port.timers == 0


def test_waiting_client_ends_the_expired_command_without_a_janitor(
    port: Port, client: Client
) -> None:
    looks: list[int] = []

    def due(key: str, first: str, last: int, *limit: Any) -> list[bytes]:
        looks.append(last)
        return []

    asked = begin(port, client, expires_in=10.0)
    port.redis.replies["ZRANGEBYSCORE"] = due
    port.clock.pump([POLL_INTERVAL] * 104)
    client.pump()
    assert looks == []
    port.clock.pump([POLL_INTERVAL] * 30)
    client.pump()
    assert 2 <= len(looks) <= 4
    ends(port, status="expired")
    look(port, client)
    assert asked.result()["status"] == "expired"


@pytest.mark.parametrize(("claimed", "sender"), [({}, "test"), ({"sender": "anna"}, "anna")])
def test_sender_of_a_command_is_the_client_unless_it_names_another(
    claimed: dict[str, str], sender: str, port: Port, client: Client
) -> None:
    submitted: list[tuple[Any, ...]] = []

    def submit(digest: bytes, *arguments: Any) -> list[bytes]:
        submitted.append(arguments)
        return [b"waits", b""]

    port.redis.replies["EVALSHA"] = submit
    reply = client.ask(SendCommand, device_id=DEVICE, text="x", command_id="c1", **claimed)
    assert reply["status"] == "waiting"
    assert reply["expires_at"].endswith("Z")
    fields = submitted[0][submitted[0].index("command_id") :]
    assert fields[fields.index("sender") + 1] == sender


def test_client_does_not_wait_if_submitting_fails(port: Port, client: Client) -> None:
    port.redis.connected = False
    asked = begin(port, client)
    assert isinstance(asked.error(), RedisUnavailable)
    assert port.timers == 0


@pytest.mark.parametrize(("offline", "waits"), [(None, 1), ("wait", 1), ("fail", 0)])
def test_option_offline_decides_whether_a_command_waits_for_its_device(
    port: Port, client: Client, offline: str | None, waits: int
) -> None:
    submitted: list[tuple[Any, ...]] = []

    def submit(digest: bytes, *arguments: Any) -> list[bytes]:
        submitted.append(arguments)
        return [b"finished", b""]

    ends(port, status="failed", reason="offline")
    port.redis.replies["EVALSHA"] = submit
    options = {} if offline is None else {"offline": offline}
    reply = client.ask(SendCommand, device_id=DEVICE, text="x", command_id="c1", **options)
    assert (reply["status"], reply["reason"]) == ("failed", "offline")
    ((_, _, _, _, *rest),) = submitted
    assert rest[11] == waits


@pytest.mark.parametrize("wait", [False, True])
def test_known_command_is_not_sent_again(port: Port, client: Client, wait: bool) -> None:
    port.redis.replies["EVALSHA"] = [b"known", b""]
    ends(port, status="responded", response="fine")
    reply = client.ask(SendCommand, device_id=DEVICE, text="x", command_id="c1", wait=wait)
    assert (reply["status"], reply["response"]) == ("responded", "fine")
    assert port.timers == 0


def status(client: Client, **about: Any) -> tuple[Any, ...]:
    reply = client.ask(CommandStatus, command_id="c1", **about)
    return reply["status"], reply["instance_id"]


def holding(port: Port, *streams: str) -> None:
    """Put the command into these streams."""
    entry = [[b"1-1", [b"command_id", b"c1"]]]
    port.redis.replies["XRANGE"] = lambda stream, *_: entry if stream in streams else []


def test_status_finds_a_command_in_the_streams_of_its_device(port: Port, client: Client) -> None:
    port.redis.replies["HMGET"] = [b"two"]
    holding(port, outbound("two"))
    assert status(client, device_id=DEVICE) == ("queued", "two")
    holding(port, waiting_commands(DEVICE))
    assert status(client, device_id=DEVICE) == ("waiting", None)
    for about in ({}, {"device_id": OTHER}):
        error = client.refusal(CommandStatus, command_id="c1", **about)
        assert isinstance(error, NoSuchCommand)


def test_status_finds_a_command_that_is_claimed_during_the_search(
    port: Port, client: Client
) -> None:
    statuses = iter([None, b"sent commands:outbound:two 1-1"])
    port.redis.replies |= {"GET": lambda _: next(statuses), "HMGET": [b"two"], "XRANGE": []}
    assert status(client, device_id=DEVICE) == ("sent", "two")


def test_key_of_another_type_does_not_hide_a_queued_command(port: Port, client: Client) -> None:
    port.redis.replies["HMGET"] = [b"two"]
    port.redis.replies["XRANGE"] = lambda stream, *_: (
        WRONG_TYPE if stream == waiting_commands(DEVICE) else [[b"1-1", [b"command_id", b"c1"]]]
    )
    assert status(client, device_id=DEVICE) == ("queued", "two")
