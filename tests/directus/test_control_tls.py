"""A control port with TLS accepts the bridge by its certificate."""

from __future__ import annotations

from pathlib import Path

from tests.directus.prepared import Prepared
from tests.directus.site import Site
from tests.servers import RedisServer, free_port
from tests.system.processes import run
from tests.system.test_commands import answer, online, read_command
from tests.waiting import wait_for


def test_bridge_sends_commands_through_a_control_port_with_tls(
    tmp_path: Path, redis: RedisServer, directus: Prepared
) -> None:
    directus.wipe()
    ours, theirs = certificates(tmp_path / "ours"), certificates(tmp_path / "theirs")
    permissions = tmp_path / "permissions"
    permissions.write_text("bridge read\n")
    port = free_port()
    control = (
        f"ssl:{port}:privateKey={ours}/server.key:certKey={ours}/server.pem:clientCA={ours}/ca.pem"
    )

    def site(*options: str) -> Site:
        return Site(
            *(tmp_path, redis, directus.server, directus.bridge_token_file.parent),
            control=control,
            permissions=permissions,
            options=options,
        )

    def options(authority: Path) -> tuple[str, ...]:
        return (
            *("--control-key", f"{ours}/bridge.key", "--control-cert", f"{ours}/bridge.pem"),
            *("--control-ca", f"{authority}/ca.pem"),
        )

    bridge = site()
    ingest = bridge.ingest
    ingest.daemon.start()
    key = bridge.create("getinfo")
    device = online(ingest)
    try:
        for given, expected in (
            ((), "--control-key, --control-cert and --control-ca"),
            (options(theirs), "the certificate is not signed by the authority in --control-ca"),
            (options(ours), "grant it to the bridge in the instance's --control-permissions"),
        ):
            if bridge.bridge.log.exists():
                assert bridge.bridge.stop() == 0
            bridge = site(*given)
            bridge.bridge.start(ready=False)
            wait_for(
                lambda: expected in reason(bridge),  # noqa: B023
                f"the reason is reported: {expected}",
                timeout=40,
            )
            assert reason(bridge).startswith(f"ssl:127.0.0.1:{port}: ")
            assert bridge.status(key) == "pending"
            assert "Traceback" not in bridge.bridge.text
        permissions.write_text("bridge operate\n")
        command = read_command(device)
        answer(device, "INI:1", command)
        wait_for(lambda: bridge.status(key) == "responded", "responded")
        assert bridge.row(key)["response"] == "INI:1"
        assert bridge.bridge.stop() == 0
        assert "Starting factory" not in bridge.bridge.text
    finally:
        bridge.bridge.kill()
        ingest.daemon.kill()


def certificates(folder: Path) -> Path:
    """Create certificates, as an operator does."""
    made = run("tracker-admin", "certs", str(folder), "--client", "bridge")
    assert made.returncode == 0, made.stderr
    return folder


def reason(site: Site) -> str:
    """Return the reason why the condition of the control ports is not met."""
    return str(site.bridge.readyz()[1].get("reasons", {}).get("control ports"))
