"""Options of roles that serve devices: transports, certificates, allow-list and limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.application.service import IService, IServiceCollection
from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.certificates import certify, key_of
from tests.unit import plainvendor
from tests.unit.tap.test_tap import service
from tracker.ingestion.authority import AllowList
from tracker.net.listener import Listener
from tracker.net.ports import UDPEndpoint
from tracker.net.proxied import ProxiedEndpoint
from tracker.net.tls import TLSEndpoint
from tracker.processing.naming import Namer
from tracker.runtime.lifecycle import Process

UDP = "teltonika=udp:5027"


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REDIS_URL", "REDIS_TELEMETRY_STREAM", "INSTANCE_ID", "TRACKER_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # a folder without server.pem


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("tls"), "192.0.2.1")


def tls(certificate: Path, rest: str = "") -> str:
    return f"teltonika=ssl:5027:privateKey={key_of(certificate)}:certKey={certificate}{rest}"


def parts(tree: IService) -> Iterator[IService]:
    """Yield a service and its descendants."""
    yield tree
    if IServiceCollection.providedBy(tree):
        for child in IServiceCollection(tree):
            yield from parts(child)


def part_types(*arguments: str) -> list[type]:
    """Return the types of the services and endpoints of a process."""
    built = service(*arguments)
    assert isinstance(built, Process)
    return [
        type(part._endpoint) if isinstance(part, Listener) else type(part) for part in parts(built)
    ]


@pytest.mark.parametrize(
    "endpoint", [UDP, "teltonika=udp:5027:interface=127.0.0.1", r"teltonika=udp:0:\:\:1"]
)
@pytest.mark.parametrize("role", ["ingest", "standalone"])
def test_listen_accepts_udp(role: str, endpoint: str) -> None:
    others = ("--console", "none") if role == "standalone" else ()
    found = part_types(role, "--listen", endpoint, *others)
    assert found.count(UDPEndpoint) == 1
    assert TCP4ServerEndpoint not in found


def test_listen_accepts_several_transports(certificate: Path) -> None:
    found = part_types(
        *("ingest", "--listen", "teltonika=tcp:5027", "--listen", UDP),
        *("--listen", tls(certificate), "--tls-client-ca", str(certificate)),
    )
    assert found.count(UDPEndpoint) == 1
    assert found.count(TLSEndpoint) == 1
    assert found.count(TCP4ServerEndpoint) == 1


def test_listen_accepts_proxied_endpoints(certificate: Path) -> None:
    proxied = tls(certificate).replace("=ssl", "=haproxy:ssl")
    found = part_types(
        *("ingest", "--listen", "teltonika=haproxy:tcp:5027:interface=127.0.0.1"),
        *("--listen", proxied, "--tls-client-ca", str(certificate)),
        *("--proxy", "192.0.2.9", "--proxy", "2001:db8::/32"),
    )
    assert found.count(ProxiedEndpoint) == 1
    assert found.count(TLSEndpoint) == 1


def test_tls_endpoint_works_without_client_certificates(certificate: Path) -> None:
    assert TLSEndpoint in part_types("ingest", "--listen", tls(certificate))


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        ((), False),
        (("--device-authority", "all"), False),
        (("--device-authority", "redis"), True),
        (("--device-authority", "redis", "--unknown-devices", "accept"), True),
        (("--device-authority", "redis", "--imei-check", "luhn"), True),
        (("--imei-check", "luhn"), False),
        (("--imei-check", "digits"), False),
    ],
)
def test_allow_list_is_read_only_with_device_authority_redis(
    arguments: tuple[str, ...], listed: bool
) -> None:
    assert (AllowList in part_types("ingest", *arguments)) is listed


@pytest.mark.parametrize(
    "arguments",
    [
        ("--frame-bytes", "64", "--command-frame-bytes", "1048576", "--records", "255"),
        ("--connections", "1", "--connection-rate", "1", "--connection-rate-per-address", "1"),
        ("--login-timeout", "0.1", "--idle-timeout", "604800", "--buffer-bytes", "64"),
        ("--datagrams-under-way", "1000000"),
    ],
)
@pytest.mark.parametrize("role", ["ingest", "standalone"])
def test_roles_that_serve_devices_accept_options_for_limits(
    role: str, arguments: tuple[str, ...]
) -> None:
    assert Process in part_types(role, *arguments)


@pytest.mark.parametrize("option", ["--frame-bytes", "--listen", "--device-authority"])
def test_processor_rejects_options_for_devices(option: str) -> None:
    assert option.lstrip("-") in usage_error("process", "--sink", "sqlite:x", option, "64")


def usage_error(*arguments: str) -> str:
    """Return the error for wrong arguments; it has to be one line."""
    with pytest.raises(SystemExit) as exit_:
        service(*arguments)
    message = str(exit_.value)
    assert message.startswith("twistd tracker")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--listen", "teltonika=udp:"), "--listen teltonika=udp:: the port"),
        (("--listen", "teltonika=udp:port"), "not 'port'"),
        (("--listen", "teltonika=udp:70000"), "not '70000'"),
        (("--listen", "teltonika=udp:5027:backlog=5"), "unknown argument 'backlog'"),
        (("--listen", "teltonika=udp"), "--listen teltonika=udp: "),
        (("--listen", "acme=udp:5027"), "unknown vendor 'acme'"),
        (("--device-authority", "mongo"), "--device-authority: must be all or redis"),
        (("--unknown-devices", "drop"), "--unknown-devices: must be refuse or accept"),
        (("--imei-check", "md5"), "--imei-check: must be digits or luhn"),
        (("--frame-bytes", "63"), "--frame-bytes: must be between 64 and 1,048,576, not 63"),
        (("--records", "256"), "--records: must be between 1 and 255"),
        (("--idle-timeout", "0"), "--idle-timeout: must be between"),
        (("--idle-timeout", "nan"), "--idle-timeout: must be like"),
        (("--connections", "-1"), "--connections: must be between"),
    ],
)
@pytest.mark.parametrize("role", ["ingest", "standalone"])
def test_invalid_option_for_devices_is_reported_in_one_line(
    role: str, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in usage_error(role, *arguments)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("teltonika=ssl:5027", "server.pem"),
        ("teltonika=ssl:5027:privateKey=/no/such/key", "/no/such/key"),
        ("teltonika=ssl:port:privateKey=x", "not 'port'"),
        ("teltonika=ssl:5027:privateKey={key}:certKey={cert}:tls=1", "unknown argument 'tls'"),
        ("teltonika=ssl:5027:privateKey={key}:certKey={cert}:backlog=x", "'x'"),
        ("teltonika=ssl:5027:privateKey={cert}:certKey={cert}", "--listen"),
        ("teltonika=ssl:5027:privateKey={key}:certKey={key}", "--listen"),
    ],
)
def test_invalid_tls_endpoint_is_reported_in_one_line(
    certificate: Path, endpoint: str, expected: str
) -> None:
    filled = endpoint.format(key=key_of(certificate), cert=certificate)
    message = usage_error("ingest", "--listen", filled, "--tls-client-ca", str(certificate))
    assert expected in message
    assert f"--listen {filled}: " in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "No such file"), (b"", "no certificate"), (b"\xff", "no certificate")],
)
def test_unreadable_authorities_are_reported(
    certificate: Path, tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    message = usage_error("ingest", "--listen", tls(certificate), "--tls-client-ca", str(file))
    assert expected in message
    assert str(file) in message


@pytest.mark.parametrize("role", [("process", "--sink", "sqlite:x"), ("standalone",)])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--names-map", "FMB920=x.csv"), "--names-map requires --names"),
        (("--names", "--names-map", "FMB920"), "must be [VENDOR:]MODEL=FILE"),
        (("--names", "--names-map", "A=x", "--names-map", "teltonika:A=y"), "A is given twice"),
        (("--names", "--names-map", "acme:=x"), "--names-map acme:=x: must be [VENDOR:]MODEL"),
        (("--names", "--names-map", "unknown:A=x"), "unknown:A=x: unknown vendor 'unknown'"),
        (("--names", "--names-map", "acme:A=x"), "--names-map: acme has no names of attributes"),
        (("--names", "--default-model", "acme:A"), "--default-model: acme has no names of"),
        (("--names", "--names-map", "A=x", "--names-map", "A=y"), "given twice"),
        (("--names", "--names-map", "FMB920=missing.csv"), "missing.csv"),
        (("--names", "--names-map", "FMB920=bad.csv"), "bad.csv: column 'id' is missing"),
        (("--names", "--names-map", "FMB920=worse.csv"), "worse.csv: row 2: not a number"),
        (("--default-model", "FMB920"), "--default-model requires --names"),
        (
            ("--names", "--default-model", "FMB999"),
            "--default-model FMB999: no list of this model. Use a similar one, such as FMB920, "
            "or add a list with --names-map FMB999=FILE.",
        ),
    ],
)
def test_invalid_option_of_names_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    role: tuple[str, ...],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    plainvendor.install(monkeypatch)
    Path("bad.csv").write_text("a,b\n1,2\n")
    Path("worse.csv").write_text("id,name,size,signed,multiplier,unit,models\n1,a,b,c,d,e,f\n")
    assert expected in usage_error(*role, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--names",),
        ("--names", "--names-map", "A=a.csv", "--default-model", "A"),
        ("--names", "--names-map", "teltonika:A=a.csv", "--default-model", "teltonika:A"),
        ("--names", "--default-model", "fmb920"),
        (),
    ],
)
def test_attributes_are_named_only_with_option_names(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    plainvendor.install(monkeypatch)
    Path("a.csv").write_text("id,name,size,signed,multiplier,unit,models\n1,A,1,0,1,,x\n")
    found = part_types("process", "--sink", "sqlite:x", *arguments)
    assert (Namer in found) is bool(arguments)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--batch-size", "0", "between 1 and 100,000"),
        ("--batch-bytes", "1000", "between 1,048,576 and 1,073,741,824"),
        ("--batch-delay", "soon", "must be like"),
        ("--claim-after", "0.5", "between 1s and 1d"),
    ],
)
def test_invalid_batch_setting_is_reported(option: str, value: str, expected: str) -> None:
    message = usage_error("process", "--sink", "sqlite:x", option, value)
    assert f"{option}: " in message
    assert expected in message
