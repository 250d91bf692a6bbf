"""Catalogue of messages for invalid input: the only tests that assert whole messages.

All other tests assert the type of an error, and a name or a value in its message.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import pytest
from twisted.internet.testing import MemoryReactorClock

from tracker import __version__
from tracker.admin import control
from tracker.admin.options import DeviceId, Duration, HexBytes, Options, Origin, Setting, read_file
from tracker.bridge.rest import checked_token, checked_url
from tracker.config import (
    choice,
    duration,
    ingest_streams,
    secret,
    sink_url,
    size,
    stable_name,
)
from tracker.console.operators import Operators
from tracker.console.sessions import session_key
from tracker.control.access import Permissions
from tracker.control.addresses import client_endpoint, server_endpoint
from tracker.control.pool import BadAddress, Credentials
from tracker.control.sockets import SocketFolders
from tracker.interfaces import SinkUnusable
from tracker.log.entries import StreamEntry
from tracker.net.certificates import load_certificates, load_private_key
from tracker.net.endpoints import ip_address, named_arguments, number, refuse_unknown_arguments
from tracker.processing.decoding import stored_position
from tracker.redis.address import redis_address
from tracker.storage.migrations import Migration, Schema, check_schema
from tracker.storage.sinks import make_sink
from tracker.vendors.installed import device_id_forms, installed_vendors

#: The forms of the device IDs of the installed vendors.
FORMS: Final = device_id_forms(installed_vendors())


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def folders_in(folder: Path) -> SocketFolders:
    """Return the folders of control sockets of user 7, in a folder."""
    return SocketFolders(
        {"TRACKER_DATA": str(folder / "data")},
        uid=7,
        system=folder / "run/tracker",
        sessions=folder / "sessions",
        temporary=folder / "tmp",
        service_data=folder / "service",
    )


def dead_socket(folder: Path) -> Path:
    path = folder / "run/tracker/dead.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    return path


def only_one(ports: list[Setting]) -> None:
    """Call the coroutine function, which returns at once."""
    coroutine = control.only_one(REACTOR, ports)
    coroutine.send(None)


def schema_refused(found: Schema) -> None:
    known = (Migration(1, "", None), Migration(2, "", "0.1.0"))
    check_schema(found, known, "fleet", url="sqlite:fleet", migrate=False)


REACTOR: Final[Any] = MemoryReactorClock()
TWO_PORTS: Final = [Setting(f"unix:/{one}.sock", Origin.FOUND, "") for one in "ab"]
DAMAGED: Final = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

#: Invalid input in an empty folder, and the message for it. {} stands for the folder.
MESSAGES: Final[list[tuple[Callable[[Path], Any], str]]] = [
    # Options of the roles.
    (
        lambda _: redis_address("http://h", {}),
        "Redis URL: must begin with redis://, rediss://, unix:// or redis+sentinel://",
    ),
    (
        lambda _: redis_address("redis://host:port", {}),
        "Redis URL: the port or the host is not valid",
    ),
    (
        lambda _: checked_url("ftp://host"),
        "must be a URL like http://127.0.0.1:8055",
    ),
    (
        lambda _: checked_url("http://me:secret@host"),
        "must not contain a user or password; the token identifies the user",
    ),
    (
        lambda _: checked_url("http://host?x"),
        "must not contain ? or #",
    ),
    (
        lambda _: checked_token("a b"),
        "the token must be one or more printable ASCII characters, without spaces",
    ),
    (
        lambda _: stable_name("--instance-id", "a b", {}, "INSTANCE_ID"),
        "--instance-id: must be 1 to 64 letters, digits, '.', '_' and '-', not 'a b'",
    ),
    (
        lambda _: sink_url(None, {}),
        "--sink is required, for example --sink sqlite:/var/lib/tracker/positions.sqlite",
    ),
    (
        lambda at: sink_url(None, {"TRACKER_SINK_FILE": f"{at}/none"}),
        "TRACKER_SINK_FILE {}/none: No such file or directory",
    ),
    (
        lambda at: sink_url(None, {"TRACKER_SINK_FILE": str(file_of(at, b"\xff"))}),
        "TRACKER_SINK_FILE {}/file: not UTF-8",
    ),
    (
        lambda at: secret("--token-file", str(file_of(at, b"\n")), {}, "TOKEN"),
        "--token-file: no secret given; give a file that contains it, or set TOKEN",
    ),
    (
        lambda _: ingest_streams({"REDIS_TELEMETRY_STREAM": "a,b"}, ["teltonika"]),
        "REDIS_TELEMETRY_STREAM: must be one name here; only the role process accepts several",
    ),
    (
        lambda _: ingest_streams({"REDIS_TELEMETRY_STREAM": "a b"}, ["teltonika"]),
        "REDIS_TELEMETRY_STREAM: a name must not contain spaces: 'a b'",
    ),
    (
        lambda _: make_sink(REACTOR, "mysql://h/db"),
        "unknown sink 'mysql'; use postgresql://…, sqlite:PATH or jsonlines:PATH "
        "(jsonlines:- is standard output)",
    ),
    (lambda _: make_sink(REACTOR, "sqlite:"), "sqlite: requires a path; use sqlite:PATH"),
    (
        lambda _: duration("--retain", "24"),
        "--retain: must be like 500ms, 10s, 5m, 24h or 7d, not '24'",
    ),
    (
        lambda _: size("--retain-bytes", "2GB"),
        "--retain-bytes: must be like 512M or 2G, at least 1M, or none, not '2GB'",
    ),
    (
        lambda _: choice({"colour": "red"}, "colour", "blue", "green"),
        "--colour: must be blue or green, not 'red'",
    ),
    (
        lambda _: make_sink(REACTOR, "postgresql://h/db?timescale=yes"),
        "timescale must be 1 or 0",
    ),
    (
        lambda _: make_sink(REACTOR, "postgresql://[h/db"),
        "not a valid PostgreSQL URL; write it as "
        "postgresql://user:password@host:5432/database?sslmode=…, and percent-encode special "
        "characters",
    ),
    (
        lambda _: schema_refused(Schema(3)),
        "database fleet has schema version 3, but this Tracker supports only 2: upgrade Tracker",
    ),
    (
        lambda _: schema_refused(Schema(1, {2: "0.1.0", 3: "7.1"})),
        "database fleet has schema version 3, which requires Tracker 7.1 or later; this is "
        f"{__version__}: upgrade Tracker",
    ),
    (
        lambda _: schema_refused(Schema(1)),
        "database fleet has schema version 1, but this Tracker requires 2: "
        "run tracker-admin migrate --sink sqlite:fleet",
    ),
    # Entries that become dead letters.
    (
        lambda _: stored_position(StreamEntry("s", "1-0", [b"payload", b"{}"]), "teltonika"),
        'field "codec" is missing',
    ),
    (
        lambda _: stored_position(StreamEntry("s", "1-0", [b"codec", b"", b"payload", b""]), ""),
        'field "codec" must have 1 to 64 printable ASCII characters',
    ),
    # Endpoints.
    (
        lambda _: named_arguments("udp:5027:127.0.0.1", ("port",)),
        "too many arguments (write a colon within an argument as \\:)",
    ),
    (lambda _: named_arguments("udp:5027:port=5028", ("port",)), "the port is given twice"),
    (
        lambda _: refuse_unknown_arguments({"mood": "0660"}, ("port", "mode")),
        "unknown argument 'mood'; known are port, mode",
    ),
    (lambda _: number("port", "65536"), "the port must be a number up to 65535, not '65536'"),
    (
        lambda _: ip_address("interface", "localhost"),
        "the interface must be an IP address, not 'localhost'",
    ),
    # Files.
    (
        lambda at: load_certificates(file_of(at, b"hello")),
        "{}/file contains no certificate in PEM form",
    ),
    (
        lambda at: load_certificates(file_of(at, DAMAGED)),
        "{}/file contains a damaged certificate",
    ),
    (
        lambda at: load_private_key(file_of(at, b"hello")),
        "{}/file contains no private key in PEM form",
    ),
    (
        lambda at: Operators(file_of(at, b"# empty\n")),
        "{}/file: no operators. Add one with tracker-admin console-operator add "
        "--file {}/file NAME",
    ),
    (
        lambda at: Operators(file_of(at, b"what is that\n")),
        "{}/file: line 1 is not NAME PERMISSION HASH",
    ),
    (
        lambda at: session_key(file_of(at, b"short")),
        "{}/file: not a key of 32 bytes; remove it to create a new one",
    ),
    # Options of tracker-admin.
    (
        lambda at: read_file(file_of(at, b"[tracker-admin]\ncontrol = \xff\n")),
        "File {}/file is not UTF-8",
    ),
    (lambda at: read_file(at), "Cannot read {}: Is a directory"),
    (
        lambda at: control.control_ports(Options(environ={}), folders_in(at)),
        "No instance with a control port found on this machine. Searched: {}/run/tracker, "
        "{}/tmp/tracker-7, {}/sessions/7/tracker, {}/data, {}/service. Run this command as the "
        "user of the instance, or give --control ENDPOINT; the log of the instance names its "
        "control port.",
    ),
    (
        lambda at: control.control_ports(
            Options(environ={}), folders_in(dead_socket(at).parents[2])
        ),
        "No instance with a control port found on this machine. {}/run/tracker/dead.sock: no "
        "process listens on it. Run this command as the user of the instance, or give --control "
        "ENDPOINT; the log of the instance names its control port.",
    ),
    (
        lambda _: only_one(TWO_PORTS),
        "2 control ports found: unix:/a.sock, unix:/b.sock. Choose one with --control or "
        "TRACKER_CONTROL.",
    ),
    (
        lambda _: Duration().convert("5", None, None),
        "Invalid value: must be like 500ms, 10s, 5m, 24h or 7d, not '5'.",
    ),
    (
        lambda _: DeviceId().convert("12345", None, None),
        f"Invalid value: '12345' is not a device ID: it must be {FORMS}.",
    ),
    (
        lambda _: HexBytes().convert("0A0", None, None),
        "Invalid value: must be pairs of hex digits, such as 0A0BFF, or 0A:0B:FF, or 0A 0B FF.",
    ),
    # Control ports and their permissions.
    (
        lambda _: server_endpoint(REACTOR, "tcp:5099"),
        "tcp: is not encrypted; use ssl: or unix:, or add plaintext=1",
    ),
    (
        lambda at: server_endpoint(REACTOR, f"unix:{at}/none/control.sock"),
        "{}/none: no such directory; create it first",
    ),
    (
        lambda _: server_endpoint(REACTOR, "ssl:5099"),
        "privateKey=FILE is missing; tracker-admin certs creates such files",
    ),
    (
        lambda _: client_endpoint(REACTOR, "tcp:example.org:5099"),
        "tcp: is for this machine only, not for example.org; use ssl:",
    ),
    (
        lambda _: Credentials().address("ssl:vm1:5091"),
        "TLS requires --control-key, --control-cert and --control-ca",
    ),
    (
        lambda at: Permissions(file_of(at, b"admin\n")),
        "{}/file: line 1: must be NAME PERMISSION, for example admin operate, not 'admin'",
    ),
    (
        lambda at: Permissions(at / "none"),
        "{}/none cannot be read: No such file or directory",
    ),
]


@pytest.mark.parametrize(("trigger", "text"), MESSAGES, ids=[text for _, text in MESSAGES])
def test_invalid_input_raises_the_catalogued_message(
    trigger: Callable[[Path], Any], text: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, OSError, BadAddress, SinkUnusable, click.UsageError)) as raised:
        trigger(tmp_path)
    error = raised.value
    message = error.format_message() if isinstance(error, click.UsageError) else str(error)
    assert message.replace(os.fspath(tmp_path), "{}") == text
