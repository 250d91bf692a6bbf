"""The wording and the exit codes of errors of the control port and of Redis."""

from __future__ import annotations

import errno

import click
import pytest
from twisted.internet.error import ConnectError, ConnectionDone

from tracker.admin.control import failure, not_connected
from tracker.admin.exitcodes import ExitCode
from tracker.admin.output import sentence
from tracker.admin.redis import _not_usable
from tracker.control.commands import (
    BadArgument,
    ControlError,
    NoSuchDevice,
    NotPermitted,
    RedisUnavailable,
)
from tracker.control.connection import NotConnected, reason_of
from tracker.errors import RunFailed
from tracker.redis.address import RedisAddress

CLOSED = reason_of(ConnectionDone())
SSL = "ssl:localhost:5099:privateKey=a.key:certKey=a.pem"


@pytest.mark.parametrize(
    ("port", "greeted", "reason", "text"),
    [
        ("unix:/x.sock", False, reason_of(ConnectError(errno.ENOENT)),
         "Cannot connect to unix:/x.sock: no such socket."),
        ("unix:/x.sock", False, reason_of(ConnectError(errno.EACCES)),
         "Cannot connect to unix:/x.sock: permission denied; run both as the same user, or with "
         "a common group and --control unix:PATH in a folder of that group."),
        ("tcp:127.0.0.1:9", False, CLOSED,
         "tcp:127.0.0.1:9 is not a control port (it closed the connection)."),
        ("tcp:127.0.0.1:9", True, CLOSED, f"Connection to tcp:127.0.0.1:9 failed: {CLOSED}."),
        (SSL, False, CLOSED, f"Cannot connect to ssl:localhost:5099: {CLOSED}."),
        (SSL, False, "TLS: alert", "Cannot connect to ssl:localhost:5099: TLS: alert."),
        (r"ssl:fe80\:\:1:5099:caCert=x", False, "no reply",
         r"Cannot connect to ssl:fe80\:\:1:5099: no reply."),
        ("ssl:[fe80::1]:5099:caCert=x", False, "no reply",
         "Cannot connect to ssl:[fe80::1]:5099: no reply."),
        ("[::1]:9", False, "no reply", "Cannot connect to [::1]:9: no reply."),
        ("tcp:[::1]:9", False, "no reply", "Cannot connect to tcp:[::1]:9: no reply."),
        ("localhost:9", False, CLOSED,
         "localhost:9 is not a control port (it closed the connection)."),
        ("/x.sock", False, reason_of(ConnectError(errno.EACCES)),
         "Cannot connect to /x.sock: permission denied; run both as the same user, or with "
         "a common group and --control unix:PATH in a folder of that group."),
    ],
)  # fmt: skip
def test_error_of_a_failed_connection_names_the_port_but_no_certificates(
    port: str, greeted: bool, reason: str, text: str
) -> None:
    error = not_connected(port, greeted, NotConnected(reason))
    assert str(error) == text
    assert error.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NotPermitted("it requires operate"), 4, "Not permitted: it requires operate."),
        (NoSuchDevice("1 is not watched"), 1, "1 is not watched."),
        (RedisUnavailable("no reply"), 3, "The request failed: no reply."),
    ],
)
def test_error_from_an_instance_is_shown_as_a_sentence(
    error: ControlError, code: int, text: str
) -> None:
    raised = failure(error)
    assert isinstance(raised, RunFailed)
    assert (raised.exit_code, sentence(str(raised))) == (code, text)


def test_argument_that_an_instance_refuses_is_a_usage_error() -> None:
    raised = failure(BadArgument("timeout must be positive"))
    assert isinstance(raised, click.UsageError)
    assert raised.message == "Invalid argument: timeout must be positive."


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("connection refused (redis://h:6379/0)",
         "Cannot connect to Redis at redis://h:6379/0: connection refused. Start it, or give its "
         "address: --redis or REDIS_URL."),
        ("DNS lookup failed: no results for hostname lookup: h (redis://h:6379/0)",
         "Cannot connect to Redis at redis://h:6379/0: DNS lookup failed: no results for hostname "
         "lookup: h. Check its address: --redis or REDIS_URL."),
        ("NOAUTH Authentication required. (redis://h:6379/0)",
         "Cannot use Redis at redis://h:6379/0: NOAUTH Authentication required."),
    ],
)  # fmt: skip
def test_error_of_an_unusable_redis_hides_the_password(reason: str, text: str) -> None:
    assert _not_usable(RedisAddress.from_url("redis://:s3cret@h"), reason) == text
