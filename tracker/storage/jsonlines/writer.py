"""The JSON lines sink: one JSON object per line, in a file or on standard output.

Delivery is at-least-once: a batch that was written but not acknowledged because the process died
is written again. Duplicate lines have the same device_id, timestamp and digest.

Checkpoints are in the file ``PATH.checkpoints``, which is replaced after the lines are on disk. It
therefore never names entries that the file does not contain.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from tracker.extra import MAX_EXTRA
from tracker.interfaces import Batch, IPositionSink, SinkUnusable, StoredPosition
from tracker.log.entries import entry_order
from tracker.reactor import Reactor
from tracker.storage.rows import encode_json, pieces, plain
from tracker.storage.thread import SinkThread
from tracker.untrusted import parse_json

#: Path that stands for standard output.
STANDARD_OUTPUT: Final = "-"
_STANDARD_OUTPUT_FILE: Final = 1
_MODE: Final = 0o640
#: Bytes per step of the search for the last newline.
_BLOCK_BYTES: Final = 65_536

_Checkpoints = dict[tuple[str, str], str]


@implementer(IPositionSink)
class JSONLinesSink:
    """Sink that appends to the file at ``path``, in its own thread.

    The file may be renamed at any time; the next batch then starts a new file.
    """

    def __init__(self, reactor: Reactor, path: str) -> None:
        self._path = path
        self._sidecar = f"{path}.checkpoints"
        self._thread = SinkThread(reactor, "jsonlines")
        self._file: int | None = None
        self._checkpoints: _Checkpoints = {}

    def open(self) -> Deferred[None]:
        """See IPositionSink."""
        self._thread.start()
        return self._thread.run(self._open)

    def store(self, batch: Batch) -> Deferred[int]:
        """See IPositionSink. All positions count as new."""
        return self._thread.run(self._store, batch)

    def checkpoint(self, stream: str, group: str) -> Deferred[str | None]:
        """See IPositionSink. For standard output, only checkpoints of this run are known."""
        return self._thread.run(lambda: self._checkpoints.get((stream, group)))

    def close(self) -> Deferred[None]:
        """See IPositionSink."""
        return self._thread.stop(self._close)

    # The following methods run in the sink's thread.

    def _open(self) -> None:
        try:
            self._open_file()
            if self._path != STANDARD_OUTPUT:
                self._checkpoints = _read_checkpoints(self._sidecar)
        except (OSError, ValueError) as error:
            self._close()
            reason = error.strerror if isinstance(error, OSError) else error
            raise SinkUnusable(f"cannot write to {self._path}: {reason}") from error

    def _open_file(self) -> None:
        if self._path == STANDARD_OUTPUT:
            # twistd redirects sys.stdout to the log.
            self._file = os.dup(_STANDARD_OUTPUT_FILE)
            return
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _repair_end(file)
            _sync_folder(self._path)
        except BaseException as error:
            os.close(file)
            if isinstance(error, BlockingIOError):
                raise ValueError("another process has locked the file") from None
            raise
        self._file = file

    def _store(self, batch: Batch) -> int:
        raised = dict(self._checkpoints)
        for key, entry_id in batch.checkpoints.items():
            # Pending entries may be delivered after later ones; checkpoints never decrease.
            known = raised.get(key)
            if entry_order(entry_id) > (entry_order(known) if known else (-1, -1)):
                raised[key] = entry_id
        file = self._usable()
        if batch.positions:
            self._append(file, pieces(map(_line, batch.positions)))
        if raised != self._checkpoints and self._path != STANDARD_OUTPUT:
            _write_checkpoints(self._sidecar, raised)
        self._checkpoints = raised
        return len(batch.positions)

    def _usable(self) -> int:
        if self._file is not None and not self._is_named():
            self._close()
        if self._file is None:
            self._open_file()
        assert self._file is not None  # noqa: S101 - it was opened just before
        return self._file

    def _is_named(self) -> bool:
        """Return True if the path still names the open file."""
        assert self._file is not None  # noqa: S101 - called with an open file only
        if self._path == STANDARD_OUTPUT:
            return True
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _append(self, file: int, lines: Iterable[str]) -> None:
        try:
            for piece in lines:
                view = memoryview(piece.encode())
                while view:
                    view = view[os.write(file, view) :]
            _sync(file)
        except BaseException:
            # Opening the file again removes an incomplete last line.
            self._close()
            raise

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # all confirmed lines are synchronised
                os.close(file)


def _line(stored: StoredPosition) -> str:
    position = stored.position
    document: dict[str, Any] = {
        "device_id": position.device_id,
        "timestamp": position.timestamp,
        "latitude": position.latitude,
        "longitude": position.longitude,
        "altitude": position.altitude,
        "angle": position.angle,
        "speed": position.speed,
        "satellites": position.satellites,
        "priority": position.priority,
        "event": position.event,
        "attributes": plain(position.attributes),
    }
    if position.generation_type is not None:
        document["generation_type"] = position.generation_type
    if stored.named is not None:
        document["named"] = plain(stored.named)
    if stored.extra.text:
        document["extra"] = parse_json(stored.extra.text, MAX_EXTRA)
    document |= {
        "vendor": stored.vendor,
        "codec": stored.codec,
        "received_at": stored.received_at,
        "digest": stored.digest.hex(),
    }
    return encode_json(document) + "\n"


def _repair_end(file: int) -> None:
    """Complete the last line of the file, or remove it if it is incomplete JSON."""
    size = end = os.fstat(file).st_size
    rest = b""
    while end and b"\n" not in rest:
        start = max(0, end - _BLOCK_BYTES)
        rest = os.pread(file, end - start, start) + rest
        end = start
    rest = rest.rpartition(b"\n")[2]
    if not rest:
        return
    try:
        whole = isinstance(json.loads(rest), dict)
    except ValueError:
        whole = False
    if whole:
        os.write(file, b"\n")
    else:
        os.ftruncate(file, size - len(rest))
    os.fsync(file)


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise  # pipes and terminals do not support fsync, and do not need it


def _read_checkpoints(path: str) -> _Checkpoints:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return {
            (stream, group): str(entry_id)
            for stream, groups in content.items()
            for group, entry_id in groups.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is not a checkpoint file; delete it to start anew") from None


def _write_checkpoints(path: str, checkpoints: Mapping[tuple[str, str], str]) -> None:
    content: dict[str, dict[str, str]] = {}
    for (stream, group), entry_id in sorted(checkpoints.items()):
        content.setdefault(stream, {})[group] = entry_id
    new = f"{path}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    _sync_folder(path)


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _sync(folder)
    finally:
        os.close(folder)
