"""``tracker-admin directus``, and the permissions of operators and of the bridge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from tests.directus.prepared import SETUP_TIMEOUT, Prepared, add_user, prepare
from tests.directus.server import DirectusServer
from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon, run
from tests.unit.bridge.double import BRIDGE_TOKEN, OPERATOR_TOKEN, UNPRIVILEGED_TOKEN
from tests.waiting import wait_for
from tracker.bridge.flows import flows
from tracker.bridge.rows import DEVICE_FIELDS
from tracker.bridge.schema import (
    BRIDGE_POLICY,
    BRIDGE_ROLE,
    BRIDGE_USER,
    SECRET_HEADER,
)
from tracker.vendors.installed import installed_vendors

IMEI = "356307042441013"

#: The schema of the processor's tables.
TABLES = Path(__file__).parents[2] / "tracker/storage/postgresql/0001.sql"

Start = Callable[..., DirectusServer]


def admin(verb: str, prepared: Prepared, *options: str) -> subprocess.CompletedProcess[str]:
    return run(
        "tracker-admin", "directus", verb, *prepared.options(), *options, timeout=SETUP_TIMEOUT
    )


def setup(prepared: Prepared, *options: str) -> tuple[int, list[str]]:
    """Run the setup, and return exit code and lines of the output."""
    ended = admin("setup", prepared, *options)
    assert not ended.stderr, ended.stderr
    return ended.returncode, ended.stdout.splitlines()


def findings(prepared: Prepared, *options: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Run the check, and return exit code and findings by check."""
    ended = admin("check", prepared, "-o", "json", *options)
    assert not ended.stderr, ended.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(ended.stdout):
        found.setdefault(one["check"], []).append(one)
    return ended.returncode, found


def failures(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [one["seen"] for each in found.values() for one in each if one["status"] == "failure"]


def test_setup_lists_its_changes(directus: Prepared) -> None:
    lines = directus.setup_output.splitlines()
    assert lines[0] == f"+ file {directus.secret_file}"
    assert lines[1] == "+ collection commands, with 16 fields"
    assert "+ flow Tracker: new commands" in lines
    assert lines[-1] == f"{len(lines) - 2} changes made."
    assert directus.secret_file.stat().st_mode & 0o777 == 0o600
    secret = directus.secret_file.read_text().strip()
    assert len(secret) > 30
    assert secret not in directus.setup_output
    assert BRIDGE_TOKEN not in directus.setup_output


def test_second_setup_changes_nothing(directus: Prepared) -> None:
    setup(directus)  # other tests use other URLs of the bridge
    latest = directus.server.data("GET", "/activity?sort=-id&limit=1&fields=id")
    assert setup(directus) == (0, ["Nothing to change."])
    assert setup(directus, "--dry-run") == (0, ["Nothing to change."])
    assert directus.server.data("GET", "/activity?sort=-id&limit=1&fields=id") == latest


def test_check_of_a_prepared_directus_succeeds(directus: Prepared) -> None:
    directus.token_file.chmod(0o600)
    directus.bridge_token_file.chmod(0o600)
    exit_code, found = findings(directus)
    wrong = [one for each in found.values() for one in each if one["status"] != "ok"]
    assert (exit_code, [one["check"] for one in wrong]) == (0, ["bridge"])
    assert wrong[0]["seen"].startswith(
        "the bridge at http://127.0.0.1:9130/commands does not respond: "
    )
    assert found["flow-reach"][0]["seen"] == "Flows reach 127.0.0.1"
    assert len(found["bridge-token"]) == 2
    assert directus.server.data("GET", "/files") == []
    assert admin("check", directus).stdout.endswith("1 warning, 0 failures, 0 skipped\n")


def test_check_connects_to_the_bridge(
    directus: Prepared, redis: RedisServer, tmp_path: Path
) -> None:
    port = free_port()
    bridge = Daemon(
        *(tmp_path, "bridge", "bridge", "--redis", redis.url),
        *("--directus", directus.server.url, "--token-file", str(directus.bridge_token_file)),
        *("--secret-file", str(directus.secret_file), "--webhook", f"tcp:{port}"),
    )
    url = f"http://127.0.0.1:{port}/commands"
    bridge.start(ready=False)
    try:
        wait_for(lambda: bridge.readyz()[0] != 0, "it runs")

        def seen(*options: str) -> tuple[str, str]:
            _, found = findings(directus, "--bridge-url", url, *options)
            (one,) = found["bridge"]
            return one["status"], one["seen"]

        assert seen() == ("ok", f"listens at {url} and accepts the secret")
        other = tmp_path / "other"
        other.write_text("another-one")
        expected = ("failure", f"the bridge at {url} has another secret")
        assert seen("--secret-file", str(other)) == expected
    finally:
        bridge.kill()
    _, found = findings(directus, "--bridge-url", f"{directus.server.url}/commands")
    unknown = f"{directus.server.url}/commands is not a bridge (it responds with HTTP status 404)"
    assert [one["seen"] for one in found["bridge"]] == [unknown]


def test_dry_run_changes_nothing(start_directus: Start, tmp_path: Path) -> None:
    server = start_directus()
    token = tmp_path / "admin"
    token.write_text(server.TOKEN)
    made = Prepared(server, token, tmp_path / "secret", tmp_path / "bridge", "")
    before = server.data("GET", "/activity?sort=-id&limit=1&fields=id")
    exit_code, lines = setup(made, "--dry-run")
    assert exit_code == 1
    assert lines[0] == f"+ file {made.secret_file}"
    assert "+ collection commands, with 16 fields" in lines
    assert lines[-1] == f"{len(lines) - 3} changes to make. Nothing was changed."
    assert not made.secret_file.exists()
    assert not made.bridge_token_file.exists()
    assert server.data("GET", "/activity?sort=-id&limit=1&fields=id") == before
    # A check reports the missing objects, and that Flows cannot reach the bridge.
    only = ("--url", server.url, "--token-file", str(token))
    ended = run("tracker-admin", "directus", "check", *only, timeout=SETUP_TIMEOUT)
    assert ended.returncode == 1
    assert "failure  collection        missing: collection commands, with 16 fields" in ended.stdout
    assert "fix: tracker-admin directus setup" in ended.stdout
    assert "warning  flow-reach        Flows cannot reach 127.0.0.1" in ended.stdout
    assert "fix: IMPORT_IP_DENY_LIST=169.254.169.254" in ended.stdout
    # The setup creates missing files; one contains the token of the bridge's user.
    assert setup(made)[0] == 0
    assert made.bridge_token_file.stat().st_mode & 0o777 == 0o600
    status, me = server.ask("GET", "/users/me", token=made.bridge_token_file.read_text().strip())
    assert (status, me["data"]["id"]) == (200, BRIDGE_USER)
    assert setup(made) == (0, ["Nothing to change."])


def test_existing_collections_are_completed_and_otherwise_kept(
    start_directus: Start, tmp_path: Path
) -> None:
    server = start_directus()
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        connection.execute(TABLES.read_text())
        connection.execute(
            "INSERT INTO last_positions (device_id, last_contact, latitude, digest) "
            "VALUES (%s, now(), 41.5, '\\x01')",
            (IMEI,),
        )
    fields: list[dict[str, Any]] = [
        {"field": "id", "type": "uuid", "schema": {"is_primary_key": True}, "meta": {}},
        {
            "field": "imei",
            "type": "string",
            "schema": {},
            "meta": {"width": "full", "note": "Ours"},
        },
        {"field": "priority", "type": "integer", "schema": {}, "meta": {}},
        {
            "field": "status",
            "type": "string",
            "schema": {},
            "meta": {
                "interface": "select-dropdown",
                "options": {"choices": [{"text": "Wartet", "value": "pending"}]},
            },
        },
    ]
    body = {"collection": "commands", "schema": {}, "meta": {"icon": "bolt"}, "fields": fields}
    server.data("POST", "/collections", body)
    prepared = prepare(server, tmp_path)
    lines = prepared.setup_output.splitlines()
    assert "+ field commands.text" in lines
    assert "~ field commands.imei: required, validation" in lines
    assert "~ field commands.status: readonly, choices, default_value" in lines
    assert "+ collection last_positions: show in Directus, read-only" in lines
    assert setup(prepared) == (0, ["Nothing to change."])

    assert server.data("GET", "/collections/commands")["meta"]["icon"] == "bolt"
    imei = server.data("GET", "/fields/commands/imei")["meta"]
    assert (imei["width"], imei["note"], imei["required"]) == ("full", "Ours", True)
    assert server.data("GET", "/fields/commands/priority")["type"] == "integer"
    choices = server.data("GET", "/fields/commands/status")["meta"]["options"]["choices"]
    assert [one["text"] for one in choices[:2]] == ["Wartet", "Routed"]
    assert len(choices) == 7
    row = server.data("POST", "/items/commands", {"imei": IMEI, "text": "getinfo"})
    assert row["status"] == "pending"

    # Operators can read the positions of devices, but not change them.
    add_user(server, OPERATOR_TOKEN, str(_policy(server, "Tracker operator")))
    status, shown = server.ask("GET", "/items/last_positions", token=OPERATOR_TOKEN)
    assert (status, shown["data"][0]["latitude"]) == (200, 41.5)
    path = f"/items/last_positions/{IMEI}"
    assert server.ask("PATCH", path, {"latitude": 0}, OPERATOR_TOKEN)[0] == 403
    assert all(one["meta"]["readonly"] for one in server.data("GET", "/fields/last_positions"))
    assert server.ask("GET", "/items/last_positions", token=BRIDGE_TOKEN)[0] == 403

    _damage(server)
    exit_code, lines = setup(prepared, "--dry-run")
    assert (exit_code, lines) == (1, [*DAMAGE, "7 changes to make. Nothing was changed."])
    exit_code, found = findings(prepared)
    assert exit_code == 1
    seen = failures(found)
    assert "different: role Tracker bridge: remove another policy" in seen
    assert "has more rights than needed: delete commands: *" in seen
    assert "lacks the right to update commands: instance, reason" in seen
    exit_code, lines = setup(prepared)
    assert (exit_code, lines) == (0, [*DAMAGE, "7 changes made."])
    assert failures(findings(prepared)[1]) == []


def test_setup_of_an_earlier_version_gets_the_field_for_bytes(directus: Prepared) -> None:
    server = directus.server
    setup(directus)  # other tests use other URLs of the bridge
    server.data("DELETE", "/fields/commands/hex")
    earlier = {"meta": {"required": True}, "schema": {"is_nullable": False}}
    server.data("PATCH", "/fields/commands/text", earlier)
    for permission in server.data("GET", "/permissions?limit=-1&filter[collection][_eq]=commands"):
        fields = [name for name in permission["fields"] or [] if name != "hex"]
        server.data("PATCH", f"/permissions/{permission['id']}", {"fields": fields})
    changes = [
        "~ field commands.text: required, is_nullable",
        "+ field commands.hex",
        "~ policy Tracker bridge: permission to read commands",
        "~ policy Tracker operator: permission to create commands",
    ]
    exit_code, found = findings(directus)
    assert exit_code == 1
    assert failures(found)[:2] == [
        "different: field commands.text: required, is_nullable",
        "missing: field commands.hex",
    ]
    assert "lacks the right to read commands: hex" in failures(found)
    assert setup(directus) == (0, [*changes, "4 changes made."])
    assert failures(findings(directus)[1]) == []
    row = server.data("POST", "/items/commands", {"imei": IMEI, "hex": "00"})
    assert (row["text"], row["hex"]) == (None, "00")
    directus.wipe()


def test_setup_of_an_earlier_version_gets_the_field_for_vendors(directus: Prepared) -> None:
    server = directus.server
    setup(directus)  # other tests use other URLs of the bridge
    server.data("DELETE", "/fields/devices/vendor")
    for permission in server.data("GET", "/permissions?limit=-1&filter[collection][_eq]=devices"):
        fields = [name for name in permission["fields"] or [] if name != "vendor"]
        server.data("PATCH", f"/permissions/{permission['id']}", {"fields": fields})
    codec = server.data("GET", "/fields/commands/codec")["meta"]["options"]
    options = {**codec, "choices": [{"text": "Codec 12", "value": "12"}]}
    server.data("PATCH", "/fields/commands/codec", {"meta": {"options": options}})
    # The bridge then reads without the field, until it is there.
    query = f"/items/devices?fields={','.join(DEVICE_FIELDS)}"
    assert server.ask("GET", query, token=BRIDGE_TOKEN)[0] == 403
    changes = [
        "~ field commands.codec: choices",
        "+ field devices.vendor",
        "~ policy Tracker bridge: permission to read devices",
    ]
    assert setup(directus) == (0, [*changes, "3 changes made."])
    assert failures(findings(directus)[1]) == []
    vendors = server.data("GET", "/fields/devices/vendor")["meta"]["options"]["choices"]
    assert [one["value"] for one in vendors] == list(installed_vendors())
    codecs = server.data("GET", "/fields/commands/codec")["meta"]["options"]["choices"]
    own = {codec for one in installed_vendors().values() for codec in one.command_codecs}
    assert (codecs[0]["text"], {one["value"] for one in codecs}) == ("Codec 12", own)
    assert server.ask("GET", query, token=BRIDGE_TOKEN)[0] == 200


DAMAGE = [
    "~ policy Tracker bridge: app_access",
    "~ policy Tracker bridge: permission to update commands",
    "~ policy Tracker bridge: remove permission to delete commands",
    "~ role Tracker bridge: remove another policy",
    "~ flow Tracker: new commands: status",
    "~ flow Tracker: new commands: change its operation: url, headers",
    "+ flow Tracker: changed devices: add its operation",
]


def _policy(server: DirectusServer, name: str) -> Any:
    (row,) = server.data("GET", f"/policies?filter[name][_eq]={name.replace(' ', '%20')}")
    return row["id"]


def _damage(server: DirectusServer) -> None:
    """Change the prepared objects, as an administrator might do by mistake."""
    server.data("PATCH", f"/policies/{BRIDGE_POLICY}", {"app_access": True})
    query = f"filter[policy][_eq]={BRIDGE_POLICY}&filter[action][_eq]=update"
    (update,) = server.data("GET", f"/permissions?{query}")
    fewer = [name for name in update["fields"] if name not in ("reason", "instance")]
    server.data("PATCH", f"/permissions/{update['id']}", {"fields": fewer})
    more = {"policy": BRIDGE_POLICY, "collection": "commands", "action": "delete", "fields": ["*"]}
    server.data("POST", "/permissions", more)
    further = {"user": BRIDGE_USER, "policy": _policy(server, "Tracker operator")}
    server.data("POST", "/access", further)
    commands, devices = flows("", "", None)
    server.data("PATCH", f"/flows/{commands.id}", {"status": "inactive"})
    options = {"method": "POST", "url": "http://127.0.0.1:1/", "headers": [], "body": "{}"}
    options["body"] = commands.operation["options"]["body"]
    server.data("PATCH", f"/operations/{commands.operation_id}", {"options": options})
    server.data("DELETE", f"/operations/{devices.operation_id}")


def test_manual_changes_are_reported_and_nothing_is_changed(
    start_directus: Start, tmp_path: Path
) -> None:
    server = start_directus()
    key = {"field": "imei", "type": "integer", "schema": {"is_primary_key": True}, "meta": {}}
    server.data("POST", "/collections", {"collection": "devices", "schema": {}, "fields": [key]})
    server.data("POST", "/collections", {"collection": "commands", "meta": {}})  # a folder
    token = tmp_path / "admin"
    token.write_text(server.TOKEN)
    made = Prepared(server, token, tmp_path / "secret", tmp_path / "bridge", "")
    exit_code, lines = setup(made)
    assert exit_code == 1
    assert lines[2:] == [
        "! collection commands is a folder; it must be a table",
        "! field devices.imei has type integer; it must have type string",
        "2 changes to make by hand in Directus. Then run setup again.",
    ]
    assert server.ask("GET", f"/policies/{BRIDGE_POLICY}")[0] == 403, "nothing else was made"


def test_token_is_replaced_and_token_of_another_user_is_refused(
    directus: Prepared, tmp_path: Path
) -> None:
    file = tmp_path / "bridge"
    file.write_text("another-token")
    options = ("--bridge-token-file", str(file))
    exit_code, found = findings(directus, *options)
    assert (exit_code, failures(found)) == (
        1,
        ["different: user Tracker bridge: set its token", "Directus refuses the token"],
    )
    assert setup(directus, *options) == (
        0,
        ["~ user Tracker bridge: set its token", "1 change made."],
    )
    assert directus.server.ask("GET", "/users/me", token=BRIDGE_TOKEN)[0] == 401
    assert setup(directus) == (0, ["~ user Tracker bridge: set its token", "1 change made."])
    file.write_text(UNPRIVILEGED_TOKEN)
    exit_code, lines = setup(directus, *options)
    assert exit_code == 1
    assert lines[0] == "! the token in the bridge's file belongs to another user; remove the file"


def test_new_secret_is_written_into_the_flows(directus: Prepared, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a-new-one")
    new = [
        "~ flow Tracker: new commands: change its operation: headers",
        "~ flow Tracker: changed devices: change its operation: headers",
        "2 changes made.",
    ]
    assert setup(directus, "--secret-file", str(file)) == (0, new)
    assert setup(directus) == (0, new)
    # Without --secret-file, the present secret is kept.
    some = directus.options()
    del some[some.index("--secret-file") :][:2]
    ended = run("tracker-admin", "directus", "setup", *some, timeout=SETUP_TIMEOUT)
    assert ended.stdout == "Nothing to change.\n"


def test_user_of_the_bridge_has_only_the_permissions_it_needs(directus: Prepared) -> None:
    directus.wipe()
    server = directus.server
    key = server.data("POST", "/items/commands", {"imei": IMEI, "text": "getinfo"})["id"]
    for path in ("/users", "/roles", "/files", "/activity", "/flows", "/settings"):
        status, answer = server.ask("GET", path, token=BRIDGE_TOKEN)
        assert status == 403 or not answer["data"], path
    for method, path, body in (
        ("PATCH", f"/items/commands/{key}", {"text": "cpureset"}),
        ("PATCH", f"/items/commands/{key}", {"id": BRIDGE_ROLE}),
        ("DELETE", f"/items/commands/{key}", None),
        ("POST", "/items/commands", {"imei": IMEI, "text": "x"}),
        ("POST", "/items/devices", {"imei": IMEI}),
        ("PATCH", f"/users/{BRIDGE_USER}", {"role": None}),
        ("POST", "/users", {"first_name": "x"}),
        ("PATCH", "/users/me", {"first_name": "x"}),
    ):
        assert server.ask(method, path, body, BRIDGE_TOKEN)[0] == 403, (method, path)
    assert server.data("GET", f"/items/commands/{key}")["text"] == "getinfo"
    status, _ = server.ask("PATCH", f"/items/commands/{key}", {"status": "routed"}, BRIDGE_TOKEN)
    assert status == 200


def test_flow_announces_a_command_of_an_operator(directus: Prepared, tmp_path: Path) -> None:
    listener = Listener()
    try:
        directus.wipe()
        _, lines = setup(directus, "--bridge-url", f"http://127.0.0.1:{listener.port}/commands")
        assert lines[-1] == "2 changes made."
        row = {"imei": IMEI, "text": "getinfo"}
        status, made = directus.server.ask("POST", "/items/commands", row, OPERATOR_TOKEN)
        assert status == 200
        directus.server.data("POST", "/items/devices", {"imei": IMEI})
        secret = directus.secret_file.read_text().strip()
        wait_for(lambda: len(listener.requests) == 2, "both Flows have run")
        assert sorted(listener.requests) == [
            ("/commands", secret, {"key": made["data"]["id"]}),
            ("/devices", secret, {"event": "devices.items.create"}),
        ]
    finally:
        listener.close()
        setup(directus)


class Listener:
    """An HTTP server that records path, secret and body of each POST request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, Any]] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.append((self.path, self.headers[SECRET_HEADER], json.loads(body)))
                self.send_response(202)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)


@pytest.mark.parametrize("verb", ["setup", "check"])
def test_token_without_admin_access_is_refused(
    directus: Prepared, tmp_path: Path, verb: str
) -> None:
    file = tmp_path / "token"
    for token, message in (
        ("an-invalid-token", f"tracker-admin: Directus refuses the token in {file}.\n"),
        (BRIDGE_TOKEN, f"tracker-admin: The token in {file} is not an administrator's.\n"),
    ):
        file.write_text(token)
        ended = admin(verb, directus, "--token-file", str(file))
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", message)


@pytest.mark.parametrize("verb", ["setup", "check"])
def test_setup_reports_a_wrong_url(directus: Prepared, verb: str) -> None:
    url = f"{directus.server.url}/admin"
    ended = admin(verb, directus, "--url", url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"tracker-admin: {url} is not a Directus: GET /policies")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["setup", "check"])
def test_setup_reports_an_unreachable_directus(directus: Prepared, verb: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = admin(verb, directus, "--url", url)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith(f"tracker-admin: Cannot reach Directus at {url}: ")
    assert "refused" in ended.stderr
    assert ended.stderr.count("\n") == 1
