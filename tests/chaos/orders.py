"""Commands: sent to control ports and written in Directus, and remembered."""

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
from tests.chaos.reacting import awaited
from tests.chaos.stage import Stage
from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient
from tracker.control.commands import BadArgument, ControlError

#: Seconds until a command expires: mostly long enough, sometimes hardly.
EXPIRIES: Final = (15.0, 15.0, 15.0, 15.0, 3.0, 0.3)
ANSWER_TIMEOUT: Final = 2.0


@define
class Order:
    """A command, as it was sent."""

    device_id: str
    text: str
    expires_at: float
    """UNIX seconds."""
    accepted: bool = False
    """Whether an instance has confirmed that it is queued."""
    sent_at: float = field(factory=time.time)


class ControlSender:
    """Sends commands to the control ports of all instances, until it is paused."""

    def __init__(self, stage: Stage, reactor: Any, seed: str, devices: dict[str, str]) -> None:
        """:param devices: device id → habit."""
        self.orders: dict[str, Order] = {}
        self.unsure = 0
        """Commands whose first attempt was not confirmed."""
        self.wrong: list[str] = []
        """Why a command was refused that is in order."""
        self.sending = True
        self.under_way = 0
        """Commands that are being sent."""
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
                        self.under_way += 1
                        task = group.create_task(self._send(len(self.orders)))
                        task.add_done_callback(self._sent)
        finally:
            for client in self._clients:
                await client.stopService().asFuture(asyncio.get_running_loop())

    def _sent(self, _: asyncio.Task[None]) -> None:
        self.under_way -= 1

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
                    self.wrong.append(f"control port: {command_id}: {error}")
                return
            except ControlError:
                # Perhaps it is queued. Send the same id again, as a client without an answer would.
                self.unsure += attempt == 0
                continue
            order.accepted = True
            return


class Operator:
    """Writes rows in Directus, in a thread, until it is closed."""

    def __init__(self, plane: Plane, seed: str, devices: list[str], pause: float) -> None:
        self.orders: dict[str, Order] = {}
        """Row id → what it holds, of all posts that were answered."""
        self.unsure = 0
        self.wrong: list[str] = []
        """Why rows were refused that are in order."""
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
                status, answer = self._plane.ask("POST", "/items/commands?limit=-1", rows)
            except (OSError, ValueError):
                self.unsure += len(orders)
                continue
            if status != 200:
                if status < 500:
                    self.wrong.append(f"operator: {status}: {answer}")
                self.unsure += len(orders)
                continue
            by_text = {one.text: one for one in orders}
            for row in answer["data"]:
                self.orders[row["id"]] = by_text[row["text"]]

    def close(self) -> None:
        """Stop."""
        self._over.set()
        self._thread.join(30)


class Poisoner:
    """Appends entries that are not positions to the stream, and remembers them."""

    def __init__(self, stage: Stage, seed: str) -> None:
        self.tried: set[str] = set()
        self.appended: dict[str, float] = {}
        """Mark of each that is in the stream, and when it was appended (UNIX)."""
        self._random = Random(seed)
        self._client = stage.store.client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poisoner", daemon=True)
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
    """Return a UNIX time in ISO 8601, as Tracker and Directus accept it."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def unix(text: str) -> float:
    """Return the UNIX time of a text in ISO 8601."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def habits(devices: list[str], random: Random) -> dict[str, str]:
    """Device id → what it does with commands."""
    kinds = ("prompt", "slow", "mute", "refuse")
    return {one: random.choices(kinds, weights=(5, 3, 1, 1))[0] for one in devices}
