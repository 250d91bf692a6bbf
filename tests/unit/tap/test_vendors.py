"""Ports and options of several vendors, one of which has settings and no datagrams."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.plainvendor import PlainSettings, PlainVendor, install
from tests.unit.tap.test_devices import parts, usage_error
from tests.unit.tap.test_tap import service
from tracker.net.listener import Listener
from tracker.tap.ingest import IngestOptions

ROLES = [("ingest",), ("standalone", "--console", "none")]
LISTEN = ("--listen", "acme=tcp:5023")


@pytest.fixture(autouse=True)
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PlainVendor:
    for name in ("REDIS_URL", "REDIS_TELEMETRY_STREAM", "INSTANCE_ID", "TRACKER_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return install(monkeypatch)


@pytest.mark.parametrize("role", ROLES, ids=" ".join)
def test_each_vendor_listens_on_its_own_endpoints(role: tuple[str, ...]) -> None:
    built = service(*role, "--listen", "teltonika=tcp:5027", "--listen", "acme=tcp:5023")
    names = {part._name for part in parts(built) if isinstance(part, Listener)}
    assert {"--listen teltonika=tcp:5027", "--listen acme=tcp:5023"} <= names


@pytest.mark.parametrize("role", ROLES, ids=" ".join)
def test_udp_is_refused_for_a_vendor_without_datagrams(role: tuple[str, ...]) -> None:
    expected = "--listen acme=udp:5023: devices of acme use tcp, not udp"
    assert expected in usage_error(*role, "--listen", "acme=udp:5023")


def test_tcp_is_refused_for_a_vendor_with_datagrams_only(vendor: PlainVendor) -> None:
    vendor.transports = frozenset({"udp"})
    assert "devices of acme use udp, not tcp" in usage_error("ingest", *LISTEN)


@pytest.mark.parametrize("role", ROLES, ids=" ".join)
def test_settings_of_a_vendor_have_their_defaults_without_options(
    vendor: PlainVendor, role: tuple[str, ...]
) -> None:
    service(*role, *LISTEN)
    assert vendor.built == PlainSettings()


@pytest.mark.parametrize("role", ROLES, ids=" ".join)
def test_options_of_a_vendor_become_its_settings(
    vendor: PlainVendor, role: tuple[str, ...]
) -> None:
    Path("secret").write_text("s3cret\n")
    options = ("--acme-zone", "-03:30", "--acme-settle-time", "1s")
    service(*role, *LISTEN, *options, "--acme-password-file", "secret")
    assert vendor.built == PlainSettings(-210, 1.0, "s3cret")
    assert "s3cret" not in repr(vendor.built)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("zone", "2", "--acme-zone: must be like +02:00, not '2'"),
        ("settle-time", "2h", "--acme-settle-time: must be between 0s and 1m"),
        ("settle-time", "x", "--acme-settle-time: must be like"),
        ("password-file", "/none", "--acme-password-file: /none: No such file or directory"),
        ("password-file", "latin", "--acme-password-file: latin: not UTF-8"),
    ],
)
def test_invalid_option_of_a_vendor_is_reported_in_one_line(
    option: str, value: str, expected: str
) -> None:
    Path("latin").write_bytes(b"\xe9")
    assert expected in usage_error("ingest", *LISTEN, f"--acme-{option}", value)


def test_option_of_a_vendor_requires_a_port_for_its_devices() -> None:
    message = usage_error("ingest", "--acme-zone", "+02:00")
    assert message.endswith("--acme-zone requires --listen acme=ENDPOINT")


def test_vendor_without_settings_has_no_options(vendor: PlainVendor) -> None:
    vendor.settings = None
    assert "acme-zone" in usage_error("ingest", *LISTEN, "--acme-zone", "+02:00")
    service("ingest", *LISTEN)
    assert vendor.built is None


def test_help_of_a_role_fits_80_columns_and_lists_options_of_vendors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = IngestOptions().getUsage().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.lstrip().startswith("--acme-zone=") for line in lines)
