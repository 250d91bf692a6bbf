"""The first hour of a stranger: every command of README.rst on a fresh Debian.

The tests run in this order; each uses the state that the previous one leaves.
"""

from __future__ import annotations

import json
import re
from typing import Final

from tests.machine.documented import README, all_commands, root_commands
from tests.machine.reader import Reader
from tests.waiting import wait_for

#: Commands that are not typed, with the reason.
NOT_TYPED: Final = {
    "make test": "takes ten minutes; .ci/run types it in a clean clone",
}

#: Simulated devices on the page.
DEVICES: Final = 10

#: Exit code of make if Ctrl-C ends it.
_INTERRUPTED: Final = 130

_NUMBER: Final = re.compile(r"\d+")
_COLOUR: Final = re.compile(r"\x1b\[[\d;]*m")
_IMEI: Final = re.compile(r"\b\d{15}\b")


def labels(overview: str) -> list[str]:
    """Return the labels of the demo's overview."""
    return re.findall(r"^  (\w+) +\S", overview, re.MULTILINE)


def problems(log: str) -> list[str]:
    """Return the warnings and errors in a log."""
    return re.findall(r"^.*#(?:warn|error|critical)\].*$", log, re.MULTILINE)


def devices(table: str) -> set[str]:
    """Return the IMEIs in an output."""
    return set(_IMEI.findall(table))


def faults(checks: str) -> list[str]:
    """Return the names of checks that doctor does not report as ok."""
    plain = _COLOUR.sub("", checks)
    return re.findall(r"^(?:warning|failed|skipped) +(\S+)", plain, re.MULTILINE)


def last_line(text: str) -> str:
    """Return the last line of an output, with 0 for each number."""
    return _NUMBER.sub("0", text.strip().splitlines()[-1])


def test_demo_prints_what_the_page_shows(reader: Reader) -> None:
    (block,) = reader.blocks("See it run")
    demo = reader.start(block)
    wait_for(lambda: re.search(r" [1-9]\d* stored ", demo.output), "positions are stored", 120)
    assert labels(demo.output) == labels(block[-1].output)
    assert last_line(demo.interrupt(_INTERRUPTED)) == last_line(block[-1].output)


def test_standalone_logs_no_warning_until_ctrl_c(reader: Reader) -> None:
    install, standalone, *_ = reader.blocks("Run it")
    reader.type(install)
    terminal = reader.start(standalone)
    reader.wait_until_ready(terminal)
    assert problems(terminal.interrupt()) == []


def test_roles_become_ready_without_a_warning(reader: Reader) -> None:
    _, _, servers, *roles = reader.blocks("Run it")
    reader.type(servers)
    terminals = [reader.start(role) for role in roles]
    for terminal in terminals:
        reader.wait_until_ready(terminal)
        assert problems(terminal.output) == []


def test_simulated_devices_are_stored(reader: Reader) -> None:
    simulate, positions = reader.blocks("Point a device at it")
    fleet = reader.start(simulate)
    acknowledged = lambda: re.findall(r" (\d+) records? acknowledged", fleet.output)  # noqa: E731
    wait_for(lambda: int([0, *acknowledged()][-1]) >= DEVICES, "records are acknowledged")
    stored = lambda: devices(reader.type(positions)[-1])  # noqa: E731
    wait_for(lambda: len(stored()) == DEVICES, "all devices are stored")


def test_simulated_device_answers_a_command(reader: Reader) -> None:
    send, watch = reader.blocks("Send a command")
    *_, connections, answer = reader.type(send)
    assert len(devices(connections)) == DEVICES
    assert "INI:" in answer
    watching = reader.start(watch)
    wait_for(lambda: "← ack " in watching.output, "traffic is shown")
    watching.interrupt(_INTERRUPTED)


def test_installation_has_no_faults_but_those_of_this_kernel(reader: Reader) -> None:
    (block,) = reader.blocks("When something is wrong")
    activate, doctor, lag, ready = reader.type(block)
    assert activate == ""
    assert all(name.startswith("machine-") for name in faults(doctor)), doctor
    assert re.search(r"^telemetry:teltonika +processor +0 +0 ", lag, re.MULTILINE)
    assert json.loads(ready)["ready"] is True


def test_redis_is_durable_after_a_restart(reader: Reader) -> None:
    reader.machine.run("systemctl", "restart", "redis-server")
    wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    assert wanted == {
        key: reader.machine.run("redis-cli", "config", "get", key).split()[1] for key in wanted
    }


def test_source_tree_is_installed_as_documented(reader: Reader) -> None:
    lines = ("cd /home/*/tracker-plane", *root_commands("Source tree"))
    reader.machine.run("sh", "-exc", "\n".join(lines))
    units = reader.machine.run("systemctl", "list-unit-files", "--no-legend", "tracker*")
    assert "tracker-ingest@.service" in units
    assert reader.machine.run("runuser", "-u", "tracker", "--", "tracker-admin", "--version")


def test_every_command_of_the_page_is_typed(reader: Reader) -> None:
    typed = {command.text for command in reader.typed}
    assert typed | NOT_TYPED.keys() == {command.text for command in all_commands(README)}
    assert not typed & NOT_TYPED.keys()
