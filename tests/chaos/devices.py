"""Devices that repeat unacknowledged records, and record all that they send and receive."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter, defaultdict, deque
from contextlib import suppress
from itertools import islice
from random import Random
from typing import Final

from attrs import define, field

from tests.proxy import Proxy
from tests.system.raw import START, frame_data
from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.position import iso_milliseconds
from tracker.vendors.teltonika.datagram import Datagram, encode_datagram
from tracker.vendors.teltonika.envelope import PREAMBLE, decode_frame, encode_frame
from tracker.vendors.teltonika.login import encode_login
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    decode_messages,
    encode_message,
)

#: Seconds that a device waits for an acknowledgement before it reconnects, or repeats a datagram.
RESPONSE_TIMEOUT: Final = 6.0
REPEAT_AFTER: Final = 1.0
#: Seconds after which a slow device answers a command.
ANSWER_DELAY: Final = 1.0
#: Maximum number of records in a frame.
MAX_RECORDS: Final = 20
_READ: Final = 1 << 16
_CODEC_13: Final = MESSAGE_CODECS[0x0D]


@define
class DeviceJournal:
    """Records, messages and commands of all devices, for comparison with the stores."""

    recorded: set[tuple[str, str]] = field(factory=set)
    """Device and time of each record."""
    acknowledged: dict[tuple[str, str], float] = field(factory=dict)
    """Device and time of each acknowledged record → UNIX time of the acknowledgement."""
    texts: Counter[tuple[str, str]] = field(factory=Counter)
    """Device and text of each message and answer → number of times it was sent."""
    executed: dict[tuple[str, str], list[float]] = field(factory=lambda: defaultdict(list))
    """Device and text of each command → UNIX times at which it was received."""
    problems: list[str] = field(factory=list)
    """Bytes that a device should never receive, as text."""
    sent: int = 0
    """Number of records sent, including repetitions."""
    connections: int = 0
    last: float = 0.0
    """Time of the last acknowledgement (monotonic)."""
    longest_pause: float = 0.0
    """Seconds of the longest pause between two acknowledgements of any devices."""
    pause_began: float = 0.0

    def acknowledge(self, device_id: str, numbers: list[int]) -> None:
        """Record the acknowledgement of records."""
        now = time.monotonic()
        if self.last and now - self.last > self.longest_pause:
            self.longest_pause, self.pause_began = now - self.last, self.last
        self.last = now
        for number in numbers:
            self.acknowledged.setdefault((device_id, moment(number)), time.time())


def moment(number: int) -> str:
    """Return the time of a record in the format of the stores."""
    return iso_milliseconds(START + number)


class Flash:
    """The records that a device keeps until they are acknowledged."""

    def __init__(self, device_id: str, journal: DeviceJournal) -> None:
        self.device_id = device_id
        self.journal = journal
        self._numbers: deque[int] = deque()
        self._next = 1

    def __len__(self) -> int:
        return len(self._numbers)

    def record(self, count: int) -> None:
        """Make ``count`` records."""
        for _ in range(count):
            self._numbers.append(self._next)
            self.journal.recorded.add((self.device_id, moment(self._next)))
            self._next += 1

    def oldest(self) -> list[int]:
        """Return the numbers of the records to send next."""
        return list(islice(self._numbers, MAX_RECORDS))

    def forget(self, numbers: list[int]) -> None:
        """Delete acknowledged records."""
        self.journal.acknowledge(self.device_id, numbers)
        for _ in numbers:
            self._numbers.popleft()


class TcpDevice:
    """A device over TCP that connects to a random instance, and executes commands.

    :param proxies: instance ID → proxy to the instance.
    :param reaction: reaction to commands: ``prompt``, ``slow``, ``mute`` or ``refuse`` (Codec 14).
    """

    def __init__(
        self,
        device_id: str,
        seed: str,
        journal: DeviceJournal,
        proxies: dict[str, Proxy],
        tls: ssl.SSLContext | None,
        reaction: str,
    ) -> None:
        self.device_id = device_id
        self.reaction = reaction
        self.flash = Flash(device_id, journal)
        self.connected_to: str | None = None
        """Id of the instance that has accepted the login; None if not logged in."""
        self.recording = True
        self._journal = journal
        self._random = Random(seed)
        self._proxies = proxies
        self._tls = tls
        self._message_count = 0

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._record())
            group.create_task(self._stay_connected())

    async def _record(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.1, 0.5))
            if self.recording:
                self.flash.record(self._random.randint(1, 4))

    async def _stay_connected(self) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError, ssl.SSLError):
                await self._connect()
            self.connected_to = None
            await asyncio.sleep(self._random.uniform(0.1, 1.0))

    async def _connect(self) -> None:
        instance, proxy = self._random.choice(sorted(self._proxies.items()))
        async with asyncio.timeout(RESPONSE_TIMEOUT):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", proxy.port, ssl=self._tls, limit=_READ
            )
        try:
            self._journal.connections += 1
            writer.write(encode_login(self.device_id))
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                if await reader.readexactly(1) != b"\x01":
                    self._journal.problems.append(f"{self.device_id}: login refused")
                    return
            self.connected_to = instance
            await self._talk(reader, writer)
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = b""
        outstanding: list[int] = []
        deadline = 0.0
        while True:
            if not outstanding and (outstanding := self.flash.oldest()):
                self._journal.sent += len(outstanding)
                writer.write(encode_frame(frame_data(*outstanding)))
                deadline = time.monotonic() + RESPONSE_TIMEOUT
            elif not outstanding and self.recording and self._random.random() < 0.05:
                self._send_message(writer)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    if not (data := await reader.read(_READ)):
                        return
                    buffer += data
            buffer, acknowledged = self._parse(buffer, writer)
            for count in acknowledged:
                if count != len(outstanding) or not outstanding:
                    self._journal.problems.append(
                        f"{self.device_id}: acknowledged {count} of {len(outstanding)} records"
                    )
                    return
                self.flash.forget(outstanding)
                outstanding = []
            if outstanding and time.monotonic() > deadline:
                return

    def _send_message(self, writer: asyncio.StreamWriter) -> None:
        """Send an unsolicited message."""
        self._message_count += 1
        text = f"word {self._message_count}"
        self._journal.texts[self.device_id, text] += 1
        message = Message(_CODEC_13, RESPONSE, text.encode(), timestamp=int(time.time()))
        writer.write(encode_frame(encode_message(message)))

    def _parse(self, buffer: bytes, writer: asyncio.StreamWriter) -> tuple[bytes, list[int]]:
        """Execute the commands in the buffer; return its rest, and the acknowledgements."""
        acknowledged = []
        while len(buffer) >= len(PREAMBLE):
            if not buffer.startswith(PREAMBLE):
                acknowledged.append(int.from_bytes(buffer[:4], "big"))
                buffer = buffer[4:]
                continue
            found = decode_frame(buffer, _READ)
            if isinstance(found, Incomplete):
                break
            if isinstance(found, Fatal):
                self._journal.problems.append(f"{self.device_id} received {buffer[:64].hex()}")
                raise OSError("not a frame")
            buffer = buffer[found.used :]
            self._execute(found.value, writer)
        return buffer, acknowledged

    def _execute(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        found = decode_messages(data)
        if not isinstance(found, Decoded) or found.value.parts[0].type != COMMAND:
            self._journal.problems.append(f"{self.device_id} received {data[:64].hex()}")
            return
        command = found.value.parts[0]
        text = command.text or ""
        self._journal.executed[self.device_id, text].append(time.time())
        if self.reaction == "mute":
            return
        refuses = self.reaction == "refuse" and command.codec.addressed
        answer = "" if refuses else f"done {text}"
        message = Message(
            command.codec, NACK if refuses else RESPONSE, answer.encode(), imei=command.imei
        )
        delay = ANSWER_DELAY if self.reaction == "slow" else 0.0
        asyncio.get_running_loop().call_later(delay, self._answer, writer, answer, message)

    def _answer(self, writer: asyncio.StreamWriter, text: str, message: Message) -> None:
        if not writer.is_closing():
            self._journal.texts[self.device_id, text] += 1
            writer.write(encode_frame(encode_message(message)))


class UdpDevice:
    """A device over UDP that repeats each datagram until its ACK."""

    def __init__(self, device_id: str, seed: str, journal: DeviceJournal, ports: list[int]) -> None:
        self.device_id = device_id
        self.flash = Flash(device_id, journal)
        self.recording = True
        self._journal = journal
        self._random = Random(seed)
        self._ports = ports
        self._packet_id = 0

    async def run(self) -> None:
        """Run until cancelled."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.bind(("127.0.0.1", 0))
            while True:
                if self.recording:
                    self.flash.record(self._random.randint(1, 3))
                if numbers := self.flash.oldest():
                    await self._deliver(loop, udp, numbers)
                await asyncio.sleep(self._random.uniform(0.1, 0.5))

    async def _deliver(
        self, loop: asyncio.AbstractEventLoop, udp: socket.socket, numbers: list[int]
    ) -> None:
        self._packet_id = (self._packet_id + 1) % 65_536
        avl_id = self._packet_id % 256
        datagram = encode_datagram(
            Datagram(self._packet_id, avl_id, self.device_id, frame_data(*numbers))
        )
        ack = bytes.fromhex("0005") + self._packet_id.to_bytes(2, "big") + b"\x01"
        ack += bytes((avl_id, len(numbers)))
        while True:
            self._journal.sent += len(numbers)
            with suppress(OSError):
                await loop.sock_sendto(
                    udp, datagram, ("127.0.0.1", self._random.choice(self._ports))
                )
            deadline = time.monotonic() + REPEAT_AFTER
            while (left := deadline - time.monotonic()) > 0:
                with suppress(TimeoutError, OSError):
                    async with asyncio.timeout(left):
                        if await loop.sock_recv(udp, 100) == ack:
                            self.flash.forget(numbers)
                            return
