"""Senders of commands (by control ports and by Directus) and of malformed entries."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import valkey
from attrs import define, field

from tests.chaos.plane import Plane
from tests.chaos.reactorthread import awaited
from tests.chaos.stage import Stage
from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient
from tracker.control.commands import BadArgument, ControlError

#: Seconds until a command expires: mostly long enough, sometimes too short.
EXPIRIES: Final = (15.0, 15.0, 15.0, 15.0, 3.0, 0.3)
ANSWER_TIMEOUT: Final = 2.0


@define
class Order:
    """A command that was sent."""

    device_id: str
    text: str
    expires_at: float
    """UNIX seconds."""
    accepted: bool = False
    """True if an instance has confirmed that the command is queued."""
    sent_at: float = field(factory=time.time)


class ControlSender:
    """Sends commands to the control ports of all instances while :attr:`sending` is set."""

    def __init__(self, stage: Stage, reactor: Any, seed: str, devices: dict[str, str]) -> None:
        """:param devices: device ID → reaction."""
        self.orders: dict[str, Order] = {}
        self.unconfirmed = 0
        """Number of commands whose first attempt was not confirmed."""
        self.problems: list[str] = []
        """Refusals of valid commands."""
        self.sending = True
        self.in_progress = 0
        """Number of commands that are being sent."""
        self._devices = devices
        self._random = Random(seed)
        self._clients = [
            ControlClient(reactor, client_endpoint(reactor, stage.control_address(name)), "chaos")
            for name in stage.control_ports
        ]

    async def run(self, pause: float) -> None:
        """Send until cancelled."""
        for client in self._clients:
            client.startService()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await asyncio.sleep(self._random.uniform(0, 2 * pause))
                    if self.sending:
                        self.in_progress += 1
                        task = group.create_task(self._send(len(self.orders)))
                        task.add_done_callback(self._sent)
        finally:
            for client in self._clients:
                await client.stopService().asFuture(asyncio.get_running_loop())

    def _sent(self, _: asyncio.Task[None]) -> None:
        self.in_progress -= 1

    async def _send(self, number: int) -> None:
        device_id = self._random.choice(sorted(self._devices))
        command_id = f"c{number}"
        expires_in = self._random.choice(EXPIRIES)
        order = Order(device_id, f"order {command_id}", time.time() + expires_in)
        self.orders[command_id] = order
        codec = "14" if self._devices[device_id] == "refuse" else self._random.choice(("12", "14"))
        for attempt in range(3):
            client = self._random.choice(self._clients)
            try:
                await awaited(
                    client.send_command(
                        *(device_id, order.text),
                        command_id=command_id,
                        codec=codec,
                        expires_at=iso(order.expires_at),
                        timeout=ANSWER_TIMEOUT,
                    )
                )
            except BadArgument as error:
                if order.expires_at > time.time() + 1:
                    self.problems.append(f"control port: {command_id}: {error}")
                return
            except ControlError:
                # The command may be queued. Send the same id again, as a client would.
                self.unconfirmed += attempt == 0
                continue
            order.accepted = True
            return


class Operator:
    """Writes rows in Directus from a thread until it is closed."""

    def __init__(self, plane: Plane, seed: str, devices: list[str], pause: float) -> None:
        self.orders: dict[str, Order] = {}
        """Row id → command, for all posts with a response."""
        self.unconfirmed = 0
        """Number of rows without a response."""
        self.problems: list[str] = []
        """Refusals of valid rows."""
        self._plane = plane
        self._random = Random(seed)
        self._devices = devices
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._over.wait(self._random.uniform(0, 2 * self._pause)):
            orders = []
            for _ in range(self._random.randint(1, 3)):
                number += 1
                expires_at = time.time() + self._random.choice(EXPIRIES)
                device_id = self._random.choice(self._devices)
                orders.append(Order(device_id, f"row {number}", expires_at, True))
            rows = [
                {"imei": one.device_id, "text": one.text, "expires_at": iso(one.expires_at),
                 "timeout": int(ANSWER_TIMEOUT)}
                for one in orders
            ]  # fmt: skip
            try:
                status, response = self._plane.ask("POST", "/items/commands?limit=-1", rows)
            except (OSError, ValueError):
                self.unconfirmed += len(orders)
                continue
            if status != 200:
                if status < 500:
                    self.problems.append(f"operator: {status}: {response}")
                self.unconfirmed += len(orders)
                continue
            by_text = {one.text: one for one in orders}
            for row in response["data"]:
                self.orders[row["id"]] = by_text[row["text"]]

    def close(self) -> None:
        """Stop."""
        self._over.set()
        self._thread.join(30)


class MalformedAppender:
    """Appends malformed entries to the stream."""

    def __init__(self, stage: Stage, seed: str) -> None:
        self.tried: set[str] = set()
        self.appended: dict[str, float] = {}
        """Mark of each appended entry → UNIX time."""
        self._random = Random(seed)
        self._client = stage.store.client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="malformed_appender", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._random.uniform(0.2, 1.5)):
            mark = f"poison {len(self.tried)}"
            self.tried.add(mark)
            fields = self._random.choice(
                (
                    {"mark": mark},
                    {"mark": mark, "ts": "x", "device_id": "y", "codec": "8", "payload": "{"},
                    {"mark": mark, "ts": "", "device_id": "\0", "codec": "8", "payload": "[]"},
                    {"mark": mark, "ts": "t", "device_id": "1", "codec": "8",
                     "payload": json.dumps({"device_id": "1", "timestamp": "never"})},
                )
            )  # fmt: skip
            try:
                self._client().xadd("telemetry:teltonika", fields)
            except (valkey.ValkeyError, OSError, AssertionError):
                continue
            self.appended[mark] = time.time()

    def close(self) -> None:
        """Stop."""
        self._over.set()
        self._thread.join(30)


def iso(moment: float) -> str:
    """Return a UNIX time as text in ISO 8601."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def unix(text: str) -> float:
    """Return the UNIX time of a text in ISO 8601."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def reactions(devices: list[str], random: Random) -> dict[str, str]:
    """Return device ID → reaction to commands."""
    kinds = ("prompt", "slow", "mute", "refuse")
    return {one: random.choices(kinds, weights=(5, 3, 1, 1))[0] for one in devices}
