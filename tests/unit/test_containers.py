"""Dockerfile and compose.yaml, as far as they can be checked without Docker.

``make test-docker`` runs them.
"""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tracker import __version__
from tracker.tap.command import Options

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
ROLES: Final = ("ingest", "process", "janitor", "console")


def instructions(name: str) -> list[str]:
    """Return the arguments of all instructions of a name."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_image_is_built_from_existing_files_that_the_build_receives() -> None:
    sources = [
        source
        for copied in instructions("COPY")
        if not copied.startswith("--from=")
        for source in copied.split()[:-1]
    ]
    assert {"tracker", "twisted", "setup.cfg"} <= set(sources)
    received = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(received) == sorted(sources)
    assert all((ROOT / source).exists() for source in sources)


def test_image_runs_as_a_fixed_user_and_says_its_version() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("ARG") == [f"VERSION={__version__}"]
    assert instructions("FROM") == ["debian:bookworm-slim AS build", "debian:bookworm-slim"]
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert 'org.opencontainers.image.version="$VERSION"' in final
    assert not re.search(r"\b(gcc|g\+\+|build-essential|pip|curl)\b", final)


@pytest.mark.parametrize("role", ROLES)
def test_role_of_compose_has_options_that_the_program_accepts(role: str) -> None:
    command = SERVICES[role]["command"]
    options = Options()
    options.parseOptions(command)
    assert options.subCommand == role
    assert options.subOptions["http"] == "tcp:9127"
    assert "('127.0.0.1', 9127," in DOCKERFILE


def test_every_service_is_confined() -> None:
    for service in SERVICES.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "pid", "devices"} & service.keys()
        assert service.get("user", "10001:10001") in ("10001:10001", "999:999")
        assert ("user" in service) == (service["image"] != "tracker-plane")


def test_only_the_port_for_devices_is_public() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    public = [port for port in published if not port.startswith("127.0.0.1:")]
    assert public == ["${DEVICES_PORT:-5027}:5027/tcp", "${DEVICES_PORT:-5027}:5027/udp"]
    assert set(published) - set(public) == {"127.0.0.1:${CONSOLE_PORT:-9120}:9120"}
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for server in ("valkey", "postgresql"):
        assert SERVICES[server]["networks"] == ["data"]


def test_names_of_ingest_and_processor_outlive_their_containers() -> None:
    assert SERVICES["ingest"]["environment"]["INSTANCE_ID"] == "ingest-1"
    assert SERVICES["process"]["environment"]["CONSUMER_NAME"] == "process-1"


def test_secrets_are_created_once_and_only_their_owner_enters_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make = [str(ROOT / "packaging" / "make-secrets"), str(folder)]
    subprocess.run(make, check=True)
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    declared = {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert declared <= {f"./secrets/{name}" for name in made}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in folder.iterdir())
    subprocess.run(make, check=True)
    assert made == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_secret_of_a_service_is_declared_and_used() -> None:
    for service in SERVICES.values():
        text = f"{service.get('command')}{service.get('entrypoint')}{service.get('environment')}"
        used = set(re.findall(r"/run/secrets/([\w.-]+)", text))
        assert used == set(service.get("secrets", ()))
        assert used <= COMPOSE["secrets"].keys()
