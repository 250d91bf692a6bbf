"""The identity of a process, from the process table and from a heartbeat."""

from __future__ import annotations

import os
import subprocess

import pytest

from tracker.ingestion.identity import Identity, is_hidden


def own_identity() -> Identity:
    identity = Identity.of(os.getpid())
    assert identity is not None
    return identity


def test_identity_distinguishes_processes() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        found = Identity.of(other.pid)
        assert found is not None
        assert found != own_identity()
        assert found == Identity.of(other.pid)
        assert found.is_beside(own_identity())
        other.kill()
    assert Identity.of(other.pid) != found


def test_process_that_has_ended_has_no_identity_before_its_parent_asks() -> None:
    with subprocess.Popen(["true"]) as other:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert Identity.of(other.pid) is None
        assert not is_hidden(other.pid)


@pytest.mark.parametrize(
    "heartbeat",
    [
        *(b"", b"{}", b"[1]", b"no json", b'{"host": "x"}', b"[" * 100_000, b"9" * 3_000_000),
        b'{"host": "x", "boot": "y", "pid": "../self", "began": 1}',
        b'{"host": "x", "boot": "y", "pid": 1e999, "began": 1}',
        b'{"host": "x", "boot": "y", "pid": true, "began": 1}',
        b'{"host": ["x"], "boot": "y", "pid": 1, "began": 1}',
        b'{"host": "' + b"x" * 1000 + b'", "boot": "y", "pid": 1, "began": 1}',
    ],
    ids=lambda heartbeat: repr(heartbeat[-30:]),
)
def test_heartbeat_without_an_identity_is_accepted(heartbeat: bytes) -> None:
    assert Identity.in_heartbeat(heartbeat) is None
