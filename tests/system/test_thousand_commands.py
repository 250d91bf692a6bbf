"""Test of a thousand commands through two instances while processes are killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from attrs import frozen

from tests.servers import RedisServer, free_port
from tests.system.commands import Responses, device_registry, fields, statuses
from tests.system.processes import Daemon, Simulation
from tests.waiting import wait_for
from tracker.simulator.fleet import simulated_imei

#: Behaviour of devices → number of the first device, number of devices, instance.
FLEETS = {
    "prompt": (0, 18, "one"),
    "also prompt": (100, 18, "two"),
    "slow": (200, 4, "two"),
    "mute": (300, 4, "one"),
    "refuse": (400, 4, "two"),
}
OFFLINE = [simulated_imei(500 + number) for number in range(4)]
TIMEOUT = 4.0


class Field:
    """Redis, two instances, a janitor and five fleets."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.redis = redis
        self.ports = {"one": free_port(), "two": free_port()}
        self.instances = {
            name: Daemon(
                *(folder, name, "ingest", "--redis", redis.url, "--instance-id", name),
                *("--listen", f"teltonika=tcp:{port}:interface=127.0.0.1"),
                *("--late-answer", "0.5"),
            )
            for name, port in self.ports.items()
        }
        self.janitor = Daemon(
            *(folder, "janitor", "janitor", "--redis", redis.url, "--interval", "1s")
        )
        self.fleets: dict[str, Simulation] = {}
        self._folder = folder

    def start(self) -> None:
        for daemon in (*self.instances.values(), self.janitor):
            daemon.start(ready=False)
        for daemon in self.instances.values():
            daemon.wait_until_ready()
        for name, (first, number, instance) in FLEETS.items():
            answers = name.removeprefix("also ")
            self.fleets[name] = Simulation(
                *(self._folder, self.ports[instance], "--answers", answers),
                *("--answer-delay", "0.3", "--first", str(first), "--devices", str(number)),
                name=name,
            )
        total = sum(number for _, number, _ in FLEETS.values())
        wait_for(lambda: len(device_registry(self.redis)) == total, "all are registered")

    def restart(self, name: str) -> None:
        """Kill an instance with SIGKILL, and start it again."""
        self.instances[name].kill()
        self.instances[name].start(ready=False)

    def executed(self) -> Counter[tuple[str, str]]:
        """Return device ID and text → number of executions."""
        return Counter(
            (line["device_id"], line["text"])
            for fleet in self.fleets.values()
            for line in fleet.commands()
        )

    def end(self) -> None:
        for fleet in self.fleets.values():
            fleet.kill()
        for daemon in (*self.instances.values(), self.janitor):
            daemon.kill()


@pytest.fixture
def field(tmp_path: Path, redis: RedisServer) -> Iterator[Field]:
    """Return the running field."""
    field = Field(tmp_path, redis)
    try:
        field.start()
        yield field
    finally:
        field.end()


@frozen
class Sent:
    """A command that was sent."""

    device_id: str
    text: str
    fleet: str


class Sender:
    """Sends commands, and records them."""

    def __init__(self, redis: RedisServer) -> None:
        self.sent: dict[str, Sent] = {}
        self.unsent = list(thousand())
        Random(7).shuffle(self.unsent)
        self._redis = redis

    def send_next(self, number: int) -> None:
        """Send the given number of commands."""
        for _ in range(number):
            self._send(*self.unsent.pop())

    def _send(self, sent: Sent, instance: str, expires_in: float) -> None:
        command_id = f"c{len(self.sent)}"
        self.sent[command_id] = sent
        content = fields(
            command_id, sent.device_id, sent.text, timeout=TIMEOUT, expires_in=expires_in
        )
        # A device can reject a command only in Codec 14. Some commands have second entries, at
        # either instance.
        content["codec"] = "14" if sent.fleet == "refuse" or len(self.sent) % 5 == 0 else ""
        self._redis.client.xadd(f"commands:outbound:{instance}", content)
        if len(self.sent) % 10 == 0:
            other = "two" if instance == "one" else "one"
            self._redis.client.xadd(f"commands:outbound:{other}", content)
            self._redis.client.xadd(f"commands:outbound:{instance}", content)


def thousand() -> Iterator[tuple[Sent, str, float]]:
    """Yield commands, each with its instance and the seconds until it expires."""
    number = 0
    for fleet, (first, devices, instance) in FLEETS.items():
        for device in range(devices):
            for round_ in range({"mute": 4, "slow": 10, "refuse": 10}.get(fleet, 24)):
                number += 1
                few = ("getinfo", "getver", "setdigout 11")
                text = few[round_] if round_ < len(few) else f"setparam 2001:{number}"
                # Some commands are sent to an instance that the device is not connected to.
                target = ("two", "one")[instance == "two"] if number % 7 == 3 else instance
                sent = Sent(simulated_imei(first + device), text, fleet)
                yield sent, target, 150.0
    for imei in OFFLINE:
        number += 1
        yield Sent(imei, "getinfo", "offline"), "two", 5.0
    while number < 1000:
        number += 1
        yield Sent(simulated_imei(0), f"setparam 2002:{number}", "expired"), "one", -1.0


def test_thousand_commands_end_once_and_are_executed_at_most_once(
    field: Field, redis: RedisServer
) -> None:
    sender = Sender(redis)
    assert len(sender.unsent) == 1000
    sender.send_next(250)
    given = Responses(redis)

    def ended(number: int) -> None:
        wait_for(lambda: given.ended() >= number, f"{number} have ended", timeout=90)

    wait_for(lambda: len(field.executed()) > 20, "some are executed")
    field.restart("one")
    ended(200)
    sender.send_next(250)
    field.restart("two")
    ended(300)
    sender.send_next(250)
    redis.kill()
    redis.start()
    ended(500)
    sender.send_next(250)
    field.janitor.kill()
    field.restart("one")
    field.janitor.start(ready=False)
    field.restart("two")
    ended(1000)

    executed = field.executed()
    allowed = Counter((sent.device_id, sent.text) for sent in sender.sent.values())
    assert not [key for key, number in executed.items() if number > allowed[key]]
    found, by_fleet = statuses(redis), Counter[tuple[str, str]]()
    assert found.keys() == sender.sent.keys()
    for command_id, sent in sender.sent.items():
        status, responses = found[command_id], given.read()[command_id]
        by_fleet[sent.fleet.removeprefix("also "), status] += 1
        was_executed = executed[sent.device_id, sent.text]
        if status in ("responded", "failed/timeout"):
            assert was_executed, (command_id, status)
            assert responses[0]["status"] == "delivered"
        if status == "expired":
            assert not was_executed
            assert len(responses) == 1
        if status == "responded" and sent.text.startswith("setparam"):
            # The answer to such a command identifies the command.
            assert responses[-1]["response"] == f"New value {sent.text.removeprefix('setparam ')};"
    for (fleet, status), number in by_fleet.items():
        print(f"{fleet}: {number} {status}")
        assert (
            status
            in {
                "prompt": {"responded", "failed/in_doubt", "failed/disconnected"},
                "slow": {"responded", "failed/in_doubt", "failed/disconnected"},
                "mute": {"failed/timeout", "failed/in_doubt", "failed/disconnected"},
                "refuse": {"rejected", "failed/in_doubt", "failed/disconnected"},
                "expired": {"expired"},
                "offline": {"expired"},
            }[fleet]
        ), (fleet, status, number)
    assert by_fleet["prompt", "responded"] > 600
    wait_for(lambda: not redis.client.keys("commands:waiting*"), "no commands wait")
    for name in field.instances:
        assert redis.client.xlen(f"commands:outbound:{name}") == 0
