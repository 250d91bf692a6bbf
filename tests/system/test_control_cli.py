"""``tracker-admin`` as a process: terminal, signals, standard streams and completion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.controlled import UNKNOWN_DEVICE, Site, imei
from tests.system.processes import BIN, environment, run
from tests.system.raw import Ingest
from tests.system.terminal import ESCAPE, Terminal, on_terminal, widths
from tests.system.test_commands import answer, online, read_command


def test_drain_asks_for_confirmation(site: Site, spare: Ingest) -> None:
    device = online(spare, imei())
    control = site.socket("spare")
    assert "Add --yes" in site.admin("drain", control=control, exit_code=2).stderr
    for keys, code in (("n\n", 1), ("", 130), ("y\n", 0)):
        terminal = Terminal("tracker-admin", "--control", control, "drain", "--seconds", "0")
        question = terminal.read_until(r"\[y/N\]: ")
        assert "Close 1 connection to spare within 0s and refuse new ones?" in question
        assert not site.json("info", control=control)["draining"]
        terminal.type(keys)
        assert (terminal.end() if keys else terminal.interrupt()) == code, terminal.shown
        assert "Traceback" not in terminal.shown
    assert device.is_closed()
    assert re.search(r"closed +1", ESCAPE.sub("", terminal.shown))


def test_command_that_is_not_utf8_is_a_usage_error(site: Site) -> None:
    assert "UTF-8" in site.admin("send", UNKNOWN_DEVICE, os.fsdecode(b"\xff"), exit_code=2).stderr
    ended = subprocess.run(
        [str(BIN / "tracker-admin"), "--control", site.socket("one"), "send", UNKNOWN_DEVICE, "-"],
        input=b"\xff", capture_output=True, check=False, env=environment(),
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.startswith(
        b"tracker-admin: Standard input is not UTF-8; send bytes with --hex."
    )


def test_table_on_a_terminal_fits_its_width_and_has_colours(site: Site) -> None:
    _devices = [online(site.one, imei()) for _ in range(3)]
    for columns in (60, 80, 120):
        command = ("tracker-admin", "--control", site.socket("one"), "connections")
        status, shown = on_terminal(*command, columns=columns)
        assert status == 0
        assert max(widths(shown)) <= columns
        assert "\x1b[1m" in shown
        assert re.search(r" \d+s ago ", ESCAPE.sub("", shown))
    status, shown = on_terminal(*command[:-1], "info", columns=columns)
    assert "\x1b[32moperate" in shown
    status, shown = on_terminal(*command[:-1], "info", columns=columns, env={"NO_COLOR": "1"})
    assert "operate" in shown
    assert "\x1b[32m" not in shown


def test_control_characters_from_a_device_are_escaped(site: Site) -> None:
    device_id = imei()
    device = online(site.one, device_id)
    where = ("tracker-admin", "--control", site.socket("one"))
    terminal = Terminal(*where, "watch", device_id, "--count", "2")
    terminal.read_until("Watching")
    sending = Terminal(*where, "send", device_id, "getver")
    answer(device, "\x1b]0;owned\x07[red]\n", read_command(device))
    assert (terminal.end(), sending.end()) == (0, 0)
    # watch shows bytes that are not text in hex.
    for shown, text in (
        (sending.shown, "\\x1b]0;owned\\x07[red]\\n"),
        (terminal.shown, "1b5d303b6f776e6564075b7265645d0a"),
    ):
        assert text in shown
        assert "\x1b]" not in shown
        assert "\x07" not in shown


def test_output_closed_by_the_reader_ends_a_command_without_an_error(site: Site) -> None:
    _device = online(site.one, imei())
    for command in ("connections | true", "lag --follow --interval 1s | head -n 1"):
        ended = subprocess.run(
            ["bash", "-c", f'set -o pipefail; tracker-admin --control "$0" {command}',
             site.socket("one")],
            capture_output=True, text=True, timeout=30, check=False,
            env=environment(PATH=f"{BIN}:{os.environ['PATH']}"),
        )  # fmt: skip
        assert ended.returncode in (0, 141), ended.stderr
        assert ended.stderr == ""


def test_full_disk_at_the_output_is_reported(site: Site) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [str(BIN / "tracker-admin"), "--control", site.socket("one"), "info"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment(),
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == "tracker-admin: Cannot continue: No space left on device.\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_valid(tmp_path: Path, shell: str) -> None:
    script = run("tracker-admin", "completion", shell)
    assert script.returncode == 0
    assert "_TRACKER_ADMIN_COMPLETE" in script.stdout
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script.stdout)
        checked = subprocess.run([shell, "-n", str(file)], capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def completed(words: str, **env: str) -> list[str]:
    """Return what the completion of bash suggests after words that it has split."""
    script = """
        eval "$(tracker-admin completion bash)"
        complete -p tracker-admin
        COMP_WORDS=(tracker-admin $1) COMP_CWORD=$2
        $(complete -p tracker-admin | sed 's/.*-F \\([^ ]*\\).*/\\1/') tracker-admin
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    ended = subprocess.run(
        ["bash", "-c", script, "bash", words, str(len(words.split()))],
        capture_output=True, text=True, check=False,
        env=environment(PATH=f"{BIN}:{os.environ['PATH']}", **env),
    )  # fmt: skip
    first, *found = ended.stdout.splitlines()
    assert first.endswith("tracker-admin"), ended.stderr
    return [name for name in found if name]


def test_bash_completes_commands_and_options() -> None:
    assert sorted(completed("dr")) == ["drain", "drop"]
    assert completed("send --off") == ["--offline"]


def test_bash_completes_names_of_devices_instances_and_streams(site: Site) -> None:
    device_id = imei()
    _device = online(site.one, device_id)
    redis = {"REDIS_URL": site.redis.url}
    control = {"TRACKER_CONTROL": site.socket("one")}
    for source in (redis, control):
        assert completed(f"send {device_id[:-1]}", **source) == [device_id]
        assert completed(f"status x --device {device_id[:-1]}", **source) == [device_id]
        assert completed("device-registry --instance o", **source) == ["one"]
        # Bash splits words at colons, and keeps what stands before the last one.
        assert completed("lag --stream telemetry : t", **source) == ["teltonika"]
    assert completed(f"--control {site.socket('one')} drop {device_id}", **redis) == [device_id]
    unreachable = {"REDIS_URL": "redis://127.0.0.1:1", "TRACKER_CONTROL": "unix:/nonexistent"}
    assert completed("send 3", **unreachable) == []


def test_tab_completes_a_stream_in_an_interactive_bash(site: Site) -> None:
    _device = online(site.one, imei())
    shell = Terminal(
        "bash", "--norc", "-i",
        env={
            "PS1": "ready> ", "REDIS_URL": site.redis.url, "PATH": f"{BIN}:{os.environ['PATH']}",
        },
    )  # fmt: skip
    try:
        shell.read_until("ready> ")
        shell.type('eval "$(tracker-admin completion bash)"; echo done\n')
        shell.read_until(r"done\n[^\n]*ready> ")
        shell.type("tracker-admin lag --stream telemetry:tel\t")
        shell.read_until("--stream telemetry:teltonika ")
    finally:
        shell.kill()
