"""The recipes of ``docs/tls.rst``."""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.raw import STREAM, RawDevice
from tests.system.recipes import Machine, block, commands
from tests.waiting import wait_for

PAGE = "tls"
DEVICE = "356307042441013"
#: The authority that devices trust.
CA = "/etc/tracker/devices/ca.pem"

Ports = Mapping[str, int]
"""Port on the page → port of the test."""


@pytest.fixture
def ports() -> Ports:
    return {port: free_port() for port in ("5027", "5028", "5091")}


@pytest.fixture
def machine(redis: RedisServer, ports: Ports) -> Iterator[Machine]:
    """Yield ``vm1``, whose host name is ``localhost``."""
    replaced = {
        r"(tcp|ssl):(502\d):": r"\1:\2:interface=127.0.0.1:",
        r"interface=0\.0\.0\.0": "interface=127.0.0.1",
        r"tracker\.example\.org": "localhost",
        **{f":{port}(?= |:|$)": f":{free}" for port, free in ports.items()},
    }
    # The path of a Unix socket has to be short.
    with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
        machine = Machine(Path(folder), "vm1", redis, replaced)
        yield machine
        machine.end()


def lines(*names: str) -> str:
    """Return the lines of these blocks."""
    return "\n".join(block(PAGE, name) for name in names)


def command(name: str, program: str) -> str:
    """Return the command of a recipe that runs this program."""
    (found,) = (line for line in commands(PAGE, name) if line.startswith(program))
    return found


def serve(machine: Machine, certificates: str) -> None:
    """Run the recipe for devices with a recipe for certificates; check its output."""
    machine.follow(PAGE, certificates)
    machine.settings("ingest.env", lines("tls-devices-settings"))
    machine.follow(PAGE, "tls-devices-restart")
    shown = machine.follow(PAGE, "tls-devices-look")
    assert "Verification: OK" in shown
    assert "Verified peername: localhost" in shown
    assert acknowledged(machine.follow(PAGE, "tls-devices-simulate")) > 0


def acknowledged(shown: str) -> int:
    """Return the number of acknowledged records in the last line of a simulated fleet."""
    *_, last = shown.splitlines()
    found = re.match(r"simulate: .* (\d+) acknowledged, .* (\d+) unacknowledged", last)
    assert found, shown
    return int(found[1])


def served(machine: Machine, port: int, authority: str, own: str = "") -> bool:
    """Return True if a device can deliver a record.

    :param authority: file of the certificates that the device trusts.
    :param own: file with the device's certificate; its key is beside it.
    """
    context = ssl.create_default_context(cafile=machine.here(authority))
    context.check_hostname = False  # the device connects to the server's address
    if own:
        context.load_cert_chain(machine.here(own), machine.here(own.replace(".pem", ".key")))
    try:
        with RawDevice(port, context) as device:
            return device.login(DEVICE) == b"\x01" and device.deliver(1)
    except (ssl.SSLError, ConnectionError):
        return False


def test_recipe_serves_devices_over_tls(machine: Machine, ports: Ports) -> None:
    serve(machine, "tls-devices-make")
    assert machine.redis.client.xlen(STREAM) >= 3
    with RawDevice(ports["5027"]) as device:  # the plain port is still open
        assert device.login(DEVICE) == b"\x01"
        assert device.deliver(1)
    with RawDevice(ports["5028"]) as device:
        assert device.login(DEVICE) != b"\x01"
    assert served(machine, ports["5028"], CA)
    machine.run("tracker-admin certs /etc/other")
    assert not served(machine, ports["5028"], "/etc/other/ca.pem")


def test_recipe_serves_devices_over_tls_with_rsa(machine: Machine) -> None:
    serve(machine, "tls-devices-rsa")
    shown = machine.run("openssl x509 -noout -text -in /etc/tracker/devices/server.pem")
    assert "Public-Key: (2048 bit)" in shown


def test_recipe_requires_client_certificates_of_devices(machine: Machine, ports: Ports) -> None:
    serve(machine, "tls-devices-make")
    assert served(machine, ports["5028"], CA)
    both = lines("tls-devices-settings", "tls-vehicles-settings")
    machine.settings("ingest.env", both)
    assert acknowledged(machine.follow(PAGE, "tls-vehicles-look")) > 0
    machine.run("tracker-admin certs /etc/other --client vehicle")
    assert not served(machine, ports["5028"], CA)
    assert not served(machine, ports["5028"], CA, "/etc/other/vehicle.pem")
    assert served(machine, ports["5028"], CA, "/etc/tracker/devices/vehicle.pem")


@pytest.fixture
def controlled(machine: Machine) -> Machine:
    """Return a machine with a control port over TLS, set up by the recipe."""
    machine.follow(PAGE, "tls-control-make")
    machine.settings("control.permissions", lines("tls-control-permissions"))
    machine.settings("ingest.env", f"TRACKER_LISTEN=--listen teltonika=tcp:{free_port()}")
    machine.settings("ingest-1.env", lines("tls-control-settings"))
    machine.follow(PAGE, "tls-control-restart")
    machine.settings("admin.conf", lines("tls-control-client"))
    return machine


def test_recipe_serves_the_control_port_over_tls(controlled: Machine) -> None:
    shown = controlled.follow(PAGE, "tls-control-look")
    assert re.search(r"^instance_id +vm1-1$", shown, re.MULTILINE)
    assert re.search(r"^you +certificate alice ", shown, re.MULTILINE)
    assert re.search(r"^permission +operate$", shown, re.MULTILINE)
    dropping = command("tls-control-read", "tracker-admin")
    looking = dropping.replace(f"drop {DEVICE}", "info")
    assert controlled.run(dropping, exit_code=4) in lines("tls-control-read") + "\n"
    assert "certificate bob" in controlled.run(looking)
    # A client without a certificate of this authority is refused.
    controlled.run("tracker-admin certs other --client bob")
    stranger = looking.replace("/etc/tracker/control/bob", "other/bob")
    # The instance of the test has another address and port than the page.
    refused = re.sub(
        r"ssl:[^:]+:\d+", "ssl:tracker.example.org:5091", controlled.run(stranger, exit_code=3)
    )
    assert refused in lines("tls-control-refused") + "\n"
    # A name that is removed from the file loses its access at once.
    controlled.settings("control.permissions", "alice operate")
    controlled.until(f"{looking} || true", lambda shown: "certificate bob" not in shown)


def test_recipe_renews_certificates(controlled: Machine) -> None:
    def certificate() -> str:
        return controlled.run("cat /etc/tracker/control/server.pem")

    before = certificate()
    assert "notAfter=" in controlled.follow(PAGE, "tls-renew")
    assert certificate() != before
    # Clients keep their certificates.
    wait_for(lambda: "alice" in controlled.follow(PAGE, "tls-control-look"), "alice has access")
