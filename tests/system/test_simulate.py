"""``tracker-admin simulate`` with a fake server: commands, answers, the journal."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.servers import free_port
from tests.system.processes import BIN, Simulation, environment, run
from tests.waiting import wait_for
from tracker.admin.exitcodes import ExitCode
from tracker.outcomes import Decoded
from tracker.simulator.fleet import simulated_imei
from tracker.simulator.run import DRAIN_TIMEOUT
from tracker.vendors.teltonika.avl import decode_packet
from tracker.vendors.teltonika.envelope import decode_frame, encode_frame
from tracker.vendors.teltonika.login import ACCEPT, decode_login
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    decode_messages,
    encode_message,
)

CODEC_12, CODEC_14 = MESSAGE_CODECS[0x0C], MESSAGE_CODECS[0x0E]
FIRST = 7
IMEI = simulated_imei(FIRST)


class CommandingServer:
    """Server of one device that acknowledges its records, and sends a command after each answer."""

    def __init__(self) -> None:
        self.login: object = None
        self.answers: list[Message] = []
        self._commands: Iterator[Message] = iter(())
        self._commanding = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(20)
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def start(self, commands: Iterable[Message]) -> None:
        """Start to serve; send ``commands``, the first of them with an ACK."""
        self._commands = iter(commands)
        self._thread.start()

    def end(self) -> None:
        """Wait until the device has closed the connection, which the test must have caused."""
        self._thread.join(30)
        self._listening.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        connection.settimeout(20)
        with connection, suppress(ConnectionError):
            self.login = decode_login(connection.recv(100))
            connection.sendall(ACCEPT)
            buffer = b""
            while data := connection.recv(1 << 16):
                buffer += data
                while isinstance(frame := decode_frame(buffer, 1 << 16), Decoded):
                    buffer = buffer[frame.used :]
                    connection.sendall(self._reply(frame.value))

    def _reply(self, data: bytes) -> bytes:
        if data[0] in MESSAGE_CODECS:
            decoded = decode_messages(data)
            assert isinstance(decoded, Decoded)
            self.answers.extend(decoded.value.parts)
            return self._next_command()
        packet = decode_packet(data)
        assert isinstance(packet, Decoded)
        acknowledgement = len(packet.value.records).to_bytes(4, "big")
        if self._commanding:
            return acknowledgement
        self._commanding = True
        return acknowledgement + self._next_command()

    def _next_command(self) -> bytes:
        command = next(self._commands, None)
        return b"" if command is None else encode_frame(encode_message(command))


class ClosingServer:
    """Server that accepts a connection, and refuses all connections from then on."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(20)
        self.port: int = self._listening.getsockname()[1]

    def serve(self) -> None:
        """Accept the connection of a device and its login; then close everything."""
        connection, _ = self._listening.accept()
        self._listening.close()
        with connection:
            connection.settimeout(20)
            connection.recv(100)
            connection.sendall(ACCEPT)


@pytest.fixture
def server() -> CommandingServer:
    return CommandingServer()


def simulate(folder: Path, server: CommandingServer, *arguments: str) -> Simulation:
    """Run one device on ``server``."""
    number = ("--devices", "1", "--first", str(FIRST))
    return Simulation(folder, server.port, *number, "--interval", "0.05", *arguments)


def test_command_is_executed_journaled_and_answered(
    server: CommandingServer, tmp_path: Path
) -> None:
    server.start(
        [
            Message(CODEC_12, COMMAND, b"setdigout 11"),
            Message(CODEC_14, COMMAND, b"setparam 2004:a", imei=IMEI),
            Message(CODEC_14, COMMAND, b"getver", imei=simulated_imei(FIRST + 1)),
            Message(CODEC_12, COMMAND, b"getparam 2004"),
        ]
    )
    fleet = simulate(tmp_path, server)
    try:
        wait_for(lambda: len(server.answers) >= 4, "all commands are answered")
        journaled = fleet.commands()
        fleet.wait_for_more(3)
        summary = fleet.park()
    finally:
        fleet.kill()
    server.end()
    assert server.login == Decoded(IMEI, 17)
    assert server.answers == [
        Message(CODEC_12, RESPONSE, b"DOUT1:1 Timeout:INFINITY DOUT2:1 Timeout:INFINITY"),
        Message(CODEC_14, RESPONSE, b"New value 2004:a;", imei=IMEI),
        Message(CODEC_14, NACK, b"", imei=IMEI),
        Message(CODEC_12, RESPONSE, b"Param ID:2004 Val:a"),
    ]
    assert journaled == [
        {"device_id": IMEI, "codec": "12", "text": "setdigout 11"},
        {"device_id": IMEI, "codec": "14", "text": "setparam 2004:a"},
        {"device_id": IMEI, "codec": "12", "text": "getparam 2004"},
    ]
    assert summary.endswith(", 0 retransmitted, 0 unacknowledged, 3 commands")


def test_killed_fleet_has_journaled_every_command_that_it_answered(
    server: CommandingServer, tmp_path: Path
) -> None:
    server.start(Message(CODEC_12, COMMAND, f"getparam {number}".encode()) for number in count())
    fleet = simulate(tmp_path, server)
    try:
        wait_for(lambda: len(server.answers) >= 200, "200 commands are answered")
    finally:
        fleet.kill()
    server.end()
    journaled = [command["text"] for command in fleet.commands()]
    assert journaled == [f"getparam {number}" for number in range(len(journaled))]
    assert len(server.answers) <= len(journaled) <= len(server.answers) + 1


def test_refusing_fleet_answers_with_a_nack(server: CommandingServer, tmp_path: Path) -> None:
    server.start([Message(CODEC_12, COMMAND, b"cpureset")])
    fleet = simulate(tmp_path, server, "--answers", "refuse")
    try:
        wait_for(lambda: server.answers, "the command is answered")
        summary = fleet.park()
    finally:
        fleet.kill()
    server.end()
    assert server.answers == [Message(CODEC_12, NACK, b"")]
    assert fleet.commands() == []
    assert summary.endswith(" 0 unacknowledged")


@pytest.mark.parametrize("seconds", [(), ("--seconds", "0.3")])
def test_closed_port_of_a_simulated_fleet_is_an_error_at_once(seconds: tuple[str, ...]) -> None:
    port = free_port()
    started = time.monotonic()
    ended = run("tracker-admin", "simulate", "--target", f"tcp:127.0.0.1:{port}", *seconds)
    assert time.monotonic() - started < DRAIN_TIMEOUT / 2
    assert ended.returncode == ExitCode.UNREACHABLE
    (line,) = ended.stderr.splitlines()
    assert f"tcp:127.0.0.1:{port}: connection refused" in line


def test_fleet_that_was_connected_waits_for_its_port_until_it_is_interrupted_twice(
    tmp_path: Path,
) -> None:
    server, log = ClosingServer(), tmp_path / "fleet.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "tracker-admin", "simulate", "--target", f"tcp:127.0.0.1:{server.port}",
             "--devices", "1", "--interval", "0.1"],
            stdout=output, stderr=subprocess.STDOUT, env=environment(),
        )  # fmt: skip
    try:
        server.serve()
        refused = lambda: "0 of 1 device connected" in log.read_text()  # noqa: E731
        wait_for(lambda: refused() and "(connection refused)" in log.read_text(), "reason", 30)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: "waiting for ACKs" in log.read_text(), "the fleet is parked", 30)
        process.send_signal(signal.SIGINT)
        assert process.wait(DRAIN_TIMEOUT / 2) == 1
    finally:
        process.kill()
    assert re.search(r" [1-9]\d* unacknowledged$", log.read_text().rstrip())
