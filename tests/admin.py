"""Run ``tracker-admin`` in the process of the test, with real sockets."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

from attrs import frozen
from click.testing import CliRunner
from twisted.internet.defer import Deferred

from tests.system.processes import environment
from tracker.admin.cli import main


@frozen
class Ended:
    """The output and the exit code of a command, with the names of a CompletedProcess."""

    returncode: int
    stdout: str
    stderr: str


def admin(*arguments: str, typed: str | None = None, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end, on the reactor of the tests.

    :param typed: standard input.
    :param env: environment; by default that of the tests without variables that configure Tracker.
    """
    variables: dict[str, str | None] = dict.fromkeys(os.environ)
    variables |= environment() if env is None else env
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        with patch("tracker.runtime.run.react", _react):
            result = CliRunner().invoke(
                main, arguments, input=typed, env=variables, prog_name="tracker-admin"
            )
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def _react(begin: Callable[[Any], Deferred[None]]) -> None:
    """Replace twisted.internet.task.react, which needs a reactor that has not run yet.

    A test runs within a call of the reactor, therefore this function iterates the reactor.
    """
    from twisted.internet import reactor

    spin: Any = reactor
    ended: list[object] = []
    begin(reactor).addBoth(ended.append)
    while not ended:
        spin.runUntilCurrent()
        spin.doIteration(0 if ended else spin.timeout())
