"""The JSON lines sink on real files."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from pytest_twisted import ensureDeferred

from tests.integration.storage.batches import CHECKPOINT, message, stored
from tests.integration.storage.conftest import Closing
from tracker.interfaces import Batch, SinkUnusable
from tracker.storage.jsonlines.writer import JSONLinesSink

KEY = ("telemetry:teltonika", "processor")


def sink_at(path: Path) -> JSONLinesSink:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    return JSONLinesSink(reactor, str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "positions.jsonl"


@pytest_twisted.async_fixture
async def sink(path: Path, closing: Closing) -> JSONLinesSink:
    sink = closing(sink_at(path))
    await sink.open()
    return sink


def lines(path: Path) -> list[Any]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@ensureDeferred
async def test_line_contains_the_payload_and_the_fields_of_the_entry(
    sink: JSONLinesSink, path: Path
) -> None:
    one = stored(1)
    named = evolve(stored(2, generation_type=5), named={"Ignition": {"value": 1}})
    assert await sink.store(Batch([one, named, message(3)], CHECKPOINT)) == 3
    first, second, third = lines(path)
    assert first == {
        **json.loads(one.position.to_payload()),
        "vendor": "teltonika",
        "codec": "8E",
        "received_at": "2026-11-22T10:00:01.000Z",
        "digest": one.digest.hex(),
    }
    assert (second["generation_type"], second["named"]) == (5, {"Ignition": {"value": 1}})
    assert third["attributes"] == {"message": "RV:07 GPS:1", "message_type": 6}


@ensureDeferred
async def test_lines_and_then_the_checkpoint_are_on_disk_before_store_returns(
    sink: JSONLinesSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = Path(f"{path}.checkpoints")
    order = []
    fsync, replace = os.fsync, os.replace

    def synced(file: int) -> None:
        order.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    def replaced(old: str, new: str) -> None:
        order.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    await sink.store(Batch([stored(1)], CHECKPOINT))
    assert order == [str(path), f"{sidecar}.new", "replace", str(path.parent)]
    assert json.loads(sidecar.read_text()) == {KEY[0]: {KEY[1]: "1-0"}}


@ensureDeferred
async def test_checkpoint_is_the_highest_entry_and_is_persistent(
    sink: JSONLinesSink, path: Path, closing: Closing
) -> None:
    assert await sink.checkpoint(*KEY) is None
    for entry_id in ("999-5", "1000-2", "1000-10", "1000-9", "2-0"):
        await sink.store(Batch([], {KEY: entry_id}))
    assert await sink.checkpoint(*KEY) == "1000-10"
    await sink.close()
    again = closing(sink_at(path))
    await again.open()
    assert await again.checkpoint(*KEY) == "1000-10"


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        ('{"device_id":"35', 1),  # incomplete
        ('{"device_id":"356"}', 2),  # complete except for the newline
        ("12", 1),  # not an object
        ("x" * 200_000, 1),
        ("", 1),
    ],
)
@ensureDeferred
async def test_incomplete_last_line_is_completed_or_removed(
    end: str, kept: int, sink: JSONLinesSink, path: Path, closing: Closing
) -> None:
    await sink.store(Batch([stored(1)], CHECKPOINT))
    await sink.close()
    with path.open("a") as file:
        file.write(end)
    again = closing(sink_at(path))
    await again.open()
    assert len(lines(path)) == kept
    await again.store(Batch([stored(2)], CHECKPOINT))
    assert len(lines(path)) == kept + 1


@ensureDeferred
async def test_failed_write_leaves_no_incomplete_line(
    sink: JSONLinesSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    full: list[bool] = []

    def fill(file: int, data: Any) -> int:
        if file != sink._file:  # the reactor also calls os.write
            return write(file, data)
        if full:
            raise OSError(28, "No space left on device")
        full.append(True)
        return write(file, data[: len(data) // 2 + 20])

    monkeypatch.setattr(os, "write", fill)
    batch = Batch([stored(1), stored(2)], CHECKPOINT)
    with pytest.raises(OSError, match="No space"):
        await sink.store(batch)
    monkeypatch.setattr(os, "write", write)
    assert await sink.checkpoint(*KEY) is None
    await sink.store(batch)
    assert [line["timestamp"][17:19] for line in lines(path)] == ["01", "01", "02"]


@ensureDeferred
async def test_renamed_file_is_replaced_by_a_new_one(sink: JSONLinesSink, path: Path) -> None:
    await sink.store(Batch([stored(1)], CHECKPOINT))
    path.rename(path.with_suffix(".1"))
    await sink.store(Batch([stored(2)], CHECKPOINT))
    assert [len(lines(one)) for one in (path.with_suffix(".1"), path)] == [1, 1]


@pytest.mark.parametrize("kind", ["missing folder", "a folder", "locked", "malformed checkpoints"])
@ensureDeferred
async def test_unusable_file_is_reported_in_one_line(
    kind: str, path: Path, closing: Closing
) -> None:
    if kind == "missing folder":
        path = path.parent / "missing" / "positions.jsonl"
    elif kind == "a folder":
        path.mkdir()
    elif kind == "malformed checkpoints":
        Path(f"{path}.checkpoints").write_text("[1]")
    with path.open("a") if kind == "locked" else open(os.devnull) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SinkUnusable) as error:
            await closing(sink_at(path)).open()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


_TO_STANDARD_OUTPUT = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.integration.storage.batches import CHECKPOINT, stored
from tracker.interfaces import Batch
from tracker.storage.sinks import make_sink

async def run():
    sink = make_sink(reactor, "jsonlines:-")
    await sink.open()
    assert await sink.store(Batch([stored(1), stored(2)], CHECKPOINT)) == 2
    assert await sink.checkpoint("telemetry:teltonika", "processor") == "1-0"
    await sink.close()
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addErrback(lambda f: f.printTraceback()))
reactor.callLater(20, reactor.stop)
reactor.run()
"""  # noqa: E501


@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_receives_the_lines(to: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TO_STANDARD_OUTPUT]
    if to == "pipe":
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    else:
        with (tmp_path / "output").open("w") as file:
            subprocess.run(command, check=True, stdout=file)
        output = (tmp_path / "output").read_text()
    assert [json.loads(line)["timestamp"][17:19] for line in output.splitlines()] == ["01", "02"]


_KILLED = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.integration.storage.batches import stored
from tracker.interfaces import Batch
from tracker.storage.sinks import make_sink

async def run(path):
    sink = make_sink(reactor, f"jsonlines:{path}")
    await sink.open()
    number = 0
    while True:
        number += 1
        batch = Batch([stored(second, event=number) for second in range(50)], {("s", "g"): f"{number}-0"})
        await sink.store(batch)
        print(number, flush=True)

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run(sys.argv[1])))
reactor.run()
"""  # noqa: E501


@ensureDeferred
async def test_confirmed_positions_survive_kill_9(path: Path, closing: Closing) -> None:
    confirmed = 0
    for run in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(10 * run):
            confirmed = int(process.stdout.readline())
        process.kill()
        left = process.stdout.read().split()
        confirmed = int(left[-1]) if left else confirmed
        process.stdout.close()
        process.wait()
    sink = closing(sink_at(path))
    await sink.open()
    checkpoint = await sink.checkpoint("s", "g")
    assert checkpoint is not None
    assert int(checkpoint.partition("-")[0]) >= confirmed
    written = {(line["event"], line["timestamp"]) for line in lines(path)}
    assert {event for event, _ in written} >= set(range(1, confirmed + 1))
    for event in range(1, confirmed + 1):
        assert sum(one == event for one, _ in written) == 50
