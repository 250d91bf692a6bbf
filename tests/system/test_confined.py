"""Services with the confinement of their units, as far as it is possible without systemd."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acl import AclRedisServer
from tests.certificates import certify, key_of
from tests.confined import settings
from tests.servers import free_port
from tests.system.commands import device_registry
from tests.system.processes import BIN, Daemon, environment, run
from tests.system.raw import STREAM, RawDevice
from tests.system.test_transports import trusting
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


class Service(Daemon):
    """A daemon with the command line, the environment and the confinement of its unit."""

    def __init__(
        self, folder: Path, unit: str, instance: str, variables: Mapping[str, str]
    ) -> None:
        path = ROOT / "systemd" / unit
        unit_settings = settings(path)
        self.name = unit.replace("@.service", f"@{instance}").removesuffix(".service")
        super().__init__(folder, self.name, "")
        credentials = folder / f"{self.name}.credentials"
        credentials.mkdir()
        for line in unit_settings["LoadCredential"]:
            name, _, source = line.partition(":")
            file = folder / "redis" / Path(source).name
            # For a missing file, systemd uses the default of SetCredential=.
            (credentials / name).write_text(file.read_text() if file.exists() else "\n")
        expanded = {"RUNTIME_DIRECTORY": str(folder)}
        for line in unit_settings["Environment"]:
            for word in shlex.split(line):
                name, _, value = word.partition("=")
                expanded[name] = (
                    value.replace("%H", socket.gethostname())
                    .replace("%i", instance)
                    .replace("%d", str(credentials))
                )
        expanded |= {"TRACKER_HTTP": f"tcp:{self._http}", **variables}
        self._environment = environment(**expanded)
        self._command = [sys.executable, "-m", "tests.confined", str(path)]
        for word in unit_settings["ExecStart"][-1].replace("/opt/tracker/bin", str(BIN)).split():
            if re.fullmatch(r"\$\w+", word):
                self._command += expanded.get(word[1:], "").split()
            else:
                self._command.append(re.sub(r"\$\{(\w+)\}", lambda match: expanded[match[1]], word))
        self._folder = ROOT  # so that tests.confined is found; no role writes there


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[AclRedisServer]:
    server = AclRedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


def test_all_roles_work_within_their_units(
    tmp_path: Path, redis: AclRedisServer, database: str
) -> None:
    port, tls = free_port(), free_port()
    certificate = certify(tmp_path, "127.0.0.1")
    files = f"privateKey={key_of(certificate)}:certKey={certificate}"
    listen = {
        "TRACKER_LISTEN": f"--listen teltonika=tcp:{port}:interface=127.0.0.1:reuseport=1",
        "TRACKER_INGEST_OPTIONS": f"--listen teltonika=ssl:{tls}:{files}:reuseport=1 "
        f"--tls-client-ca {certificate}",
    }
    (tmp_path / "redis" / "process.sink").write_text(database + "\n")
    ingests = [Service(tmp_path, "tracker-ingest@.service", one, listen) for one in ("1", "2")]
    process = Service(tmp_path, "tracker-process@.service", "1", {})
    janitor = Service(tmp_path, "tracker-janitor.service", "", {})
    services = [*ingests, process, janitor]
    with ExitStack() as stack:
        for service in services:
            stack.callback(service.kill)
            service.start()
        devices = []
        for number in range(20):
            encrypted = trusting(certificate, certificate) if number % 2 else None
            device = stack.enter_context(RawDevice(tls if number % 2 else port, encrypted))
            assert device.login(f"35630704{number:07}") == b"\x01"
            assert device.deliver(number)
            devices.append(device)
        host = socket.gethostname()
        wait_for(lambda: len(device_registry(redis)) == 20, "all devices are registered")
        assert set(device_registry(redis).values()) == {f"{host}-1", f"{host}-2"}
        wait_for(lambda: not redis.client.xinfo_groups(STREAM)[0]["lag"], "all entries are read")
        wait_for(
            lambda: not redis.client.xpending(STREAM, "processor")["pending"],
            "all entries are stored",
        )
        shown = run("tracker-admin", "--control", f"unix:{tmp_path}/control-{host}-1.sock", "info")
        assert f"{host}-1" in shown.stdout, shown.stderr
        assert redis.denied() == []
        assert [service.stop() for service in services] == [0] * len(services)


def test_bridge_connects_to_directus_over_tls_within_its_unit(
    tmp_path: Path, redis: AclRedisServer
) -> None:
    # A plain web server in the place of Directus: any response shows that TLS works.
    certificate = certify(tmp_path, "127.0.0.1")
    port = free_port()
    (tmp_path / "redis" / "bridge.directus-token").write_text("a-token\n")
    bridge = Service(
        *(tmp_path, "tracker-bridge.service", ""),
        {
            "DIRECTUS_URL": f"https://127.0.0.1:{port}",
            "SSL_CERT_FILE": str(certificate),
            "TRACKER_BRIDGE_OPTIONS": "--webhook none --poll-commands 0.2",
        },
    )
    web = Daemon(tmp_path, "web", "")
    web._command = [
        *(str(BIN / "twistd"), "--nodaemon", "--pidfile=", "web", "--path", str(tmp_path)),
        *("--listen", f"ssl:{port}:privateKey={key_of(certificate)}:certKey={certificate}"),
    ]
    with ExitStack() as stack:
        for daemon in (web, bridge):
            stack.callback(daemon.kill)
            daemon.start(ready=False)
        wait_for(lambda: "/items/" in web.text, "a request over TLS", timeout=40)
        wait_for(lambda: "404" in str(bridge.readyz()[1]), "the response over TLS", timeout=40)
        assert bridge.stop() == 0
