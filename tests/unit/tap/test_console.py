"""Options of the console, and the errors that are found before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.application.service import MultiService

from tests.certificates import certify, key_of
from tests.unit.console.test_operators_file import HASH
from tests.unit.tap.test_tap import service


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "REDIS_TELEMETRY_STREAM", "TRACKER_DATA", "TRACKER_SINK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def operators(tmp_path: Path) -> Path:
    path = tmp_path / "operators"
    path.write_text(f"anna operate {HASH}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def tls(tmp_path: Path) -> str:
    certificate = certify(tmp_path, "127.0.0.1")
    return f"privateKey={key_of(certificate)}:certKey={certificate}"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--listen", "tcp:9120"),
        ("--listen", r"tcp6:9120:interface=\:\:1"),
        ("--listen", "tcp6:9120"),
        ("--listen", "tcp:9120:interface=127.0.0.53"),
        ("--sink", "sqlite:/nowhere/positions.sqlite", "--host-name", "console.example.org"),
        ("--sink", "postgresql:///tracker"),
        ("--control", "unix:/run/x.sock", "--no-commands"),
        ("--behind", "1", "--far-behind", "2.5"),
        ("--tiles", "https://tile.example.org/{z}/{x}/{y}.png", "--tiles-credit", "© Example"),
    ],
    ids=" ".join,
)
def test_console_is_built_from_valid_options(arguments: tuple[str, ...]) -> None:
    assert isinstance(service("console", *arguments), MultiService)


def test_remote_access_is_allowed_with_tls_and_operators(operators: Path, tls: str) -> None:
    listen = f"ssl:9120:interface=0.0.0.0:{tls}"
    assert service("console", "--listen", listen, "--operators", str(operators))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--listen", "tcp:9120:interface=0.0.0.0"), "not encrypted, but reachable"),
        (("--listen", "tcp:9120:192.0.2.1"), "not encrypted, but reachable"),
        (("--listen", r"tcp6:9120:interface=\:\:"), "not encrypted, but reachable"),
        (("--listen", "tcp:9120:interface="), "not encrypted, but reachable"),
        (("--listen", "systemd:domain=INET:index=0"), "systemd has passed no such socket"),
        (("--listen", "unix:/tmp/x"), "must begin with tcp: or ssl:"),
        (("--listen", "tcp:web"), "the port must be a number"),
        (("--listen", "ssl:9120:privateKey=/none.pem"), "/none.pem: No such file or directory"),
        (("--sink", "jsonlines:/x"), "--sink: positions in jsonlines cannot be read"),
        (("--sink", "mysql://x"), "--sink: unknown sink 'mysql'"),
        (("--operators", "/none"), "--operators /none: No such file or directory"),
        (("--behind", "60"), "--far-behind must be greater than --behind"),
        (("--behind", "soon"), "--behind: must be like 500ms"),
        (("--tiles", "https://tile.example.org/"), "--tiles: must be like"),
        (("--tiles", "https://a; script-src */{z}/{x}/{y}"), "--tiles: must be like"),
        (("--tiles", "javascript:{z}{x}{y}"), "--tiles: must be like"),
        (("--redis", "http://x"), "redis"),
        (("--default-model", "X"), "--default-model X: no list of this model. Use a similar one, "
         "such as FMB920."),
    ],
)  # fmt: skip
def test_invalid_option_of_the_console_is_reported_in_one_line(
    arguments: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        service("console", *arguments)
    text = str(caught.value)
    assert expected in text
    assert "\n" not in text


def test_remote_access_requires_operators(tls: str) -> None:
    with pytest.raises(SystemExit, match="Add --operators FILE"):
        service("console", "--listen", f"ssl:9120:interface=0.0.0.0:{tls}")


def test_tls_endpoint_is_on_loopback_by_default(tls: str) -> None:
    assert service("console", "--listen", f"ssl:9120:{tls}")


@pytest.mark.parametrize("console", ["none", "tcp:9121"])
def test_console_is_part_of_standalone(
    console: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = service("standalone", "--console", console)
    assert isinstance(process, MultiService)
    roles = [child.name for role in process if isinstance(role, MultiService) for child in role]
    assert ("console" in roles) == (console != "none")


def test_console_of_standalone_requires_tls_for_remote_access(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--console tcp:9121:interface=0\.0\.0\.0: not encrypted"):
        service("standalone", "--data", str(tmp_path), "--console", "tcp:9121:interface=0.0.0.0")


def test_sink_of_the_console_can_be_read_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sink"
    monkeypatch.setenv("TRACKER_SINK_FILE", str(file))
    file.write_text("\n")
    assert service("console")
    file.write_text("mysql://x\n")
    with pytest.raises(SystemExit, match="--sink: unknown sink 'mysql'"):
        service("console")
