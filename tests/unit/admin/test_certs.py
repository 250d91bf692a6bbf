"""``tracker-admin certs``: the files that it creates and keeps, and its errors."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import tempfile
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.testing import MemoryReactor

from tests.certificates import certify
from tracker.admin import certs
from tracker.admin.cli import main
from tracker.admin.issuing import (
    AUTHORITY_DAYS,
    is_issued_by,
    is_server_name,
    make_authority,
    pem,
    read_certificate,
    read_key,
    server_names,
    utc_now,
)
from tracker.control.addresses import client_endpoint, server_endpoint

PAIRS = ["admin.key", "admin.pem", "ca.key", "ca.pem", "server.key", "server.pem"]


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["certs", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def error_of(*arguments: str | Path) -> str:
    """Run a command that fails, and return its error, which is one line."""
    output = run(*arguments, code=1)
    assert output.count("\n") == 1
    assert output.startswith("tracker-admin: ")
    return output.removeprefix("tracker-admin: ").rstrip()


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def certificate(folder: Path, name: str) -> x509.Certificate:
    return read_certificate((folder / f"{name}.pem").read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files that are created by default."""
    folder = tmp_path / "certs"
    run(folder)
    return folder


def test_certificates_of_authority_server_and_client_are_created(folder: Path) -> None:
    assert sorted(content(folder)) == PAIRS
    authority = certificate(folder, "ca")
    for name in ("server", "admin"):
        assert is_issued_by(certificate(folder, name), authority)
        assert read_key((folder / f"{name}.key").read_bytes()).public_key() == (
            certificate(folder, name).public_key()
        )


def test_keys_are_readable_by_their_owner_only_under_any_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        run(tmp_path / "certs")
    finally:
        os.umask(former)
    for file in (tmp_path / "certs").iterdir():
        mode = 0o600 if file.suffix == ".key" else 0o644
        assert stat.S_IMODE(file.stat().st_mode) == mode, file


def test_key_file_is_never_readable_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    store = os.link

    def link(source: str, target: Path) -> None:
        modes.append((target.name, stat.S_IMODE(os.stat(source).st_mode)))
        store(source, target)

    opened = os.open

    def record(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_CREAT:
            assert mode == 0o600
            assert flags & os.O_EXCL
        return opened(path, flags, mode, **options)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "open", record)
    run(tmp_path / "certs")
    assert dict(modes) == {name: 0o600 if name.endswith(".key") else 0o644 for name in PAIRS}


def test_extensions_restrict_the_use_of_a_certificate(folder: Path) -> None:
    authority = certificate(folder, "ca")
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    for name, purpose in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("admin", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        extensions = certificate(folder, name).extensions
        basic = extensions.get_extension_for_class(x509.BasicConstraints)
        assert (basic.critical, basic.value.ca) == (True, False)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        assert (usage.critical, usage.value.digital_signature) == (True, True)
        assert not usage.value.key_cert_sign
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(purposes) == [purpose]
        issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert issuer.key_identifier == identifier.digest


def test_common_name_in_a_client_certificate_is_the_name_of_the_client(tmp_path: Path) -> None:
    run(tmp_path, "--client", "alice", "--client", "grafana-1.example")
    for name in ("alice", "grafana-1.example"):
        (attribute,) = certificate(tmp_path, name).subject
        assert (attribute.oid, attribute.value) == (NameOID.COMMON_NAME, name)
    assert not (tmp_path / "admin.pem").exists()


def test_server_certificate_has_the_names_of_this_machine_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Tracker-7")
    run(tmp_path)
    assert server_names(certificate(tmp_path, "server")) == [
        *("localhost", "127.0.0.1", "::1", "tracker-7")
    ]


def test_host_name_that_no_certificate_may_contain_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my_host")
    assert certs.default_names() == ["localhost", "127.0.0.1", "::1"]


def test_server_certificate_has_only_the_given_names(tmp_path: Path) -> None:
    names = ["Tracker.example.org", "192.0.2.7", "2001:DB8::7", "192.0.2.7"]
    run(tmp_path, *(part for name in names for part in ("--server-name", name)))
    found = certificate(tmp_path, "server").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert list(found.value) == [
        x509.DNSName("tracker.example.org"),
        x509.IPAddress(ip_address("192.0.2.7")),
        x509.IPAddress(ip_address("2001:db8::7")),
    ]


def test_days_option_sets_the_validity_of_server_and_client_certificates(tmp_path: Path) -> None:
    now = utc_now()
    run(tmp_path, "--days", "30")
    for name, days in (("ca", AUTHORITY_DAYS), ("server", 30), ("admin", 30)):
        end = certificate(tmp_path, name).not_valid_after_utc
        assert abs(end - now - timedelta(days=days)) < timedelta(minutes=1)
        assert certificate(tmp_path, name).not_valid_before_utc < now


def test_certificate_expires_with_its_authority_at_the_latest(folder: Path, tmp_path: Path) -> None:
    key = read_key((folder / "ca.key").read_bytes())
    other = tmp_path / "other"
    other.mkdir()
    (other / "ca.key").write_bytes(pem(key))
    authority = make_authority(key, utc_now() - timedelta(days=AUTHORITY_DAYS - 10))
    (other / "ca.pem").write_bytes(pem(authority))
    run(other)
    assert certificate(other, "server").not_valid_after_utc == authority.not_valid_after_utc


def test_printed_command_lines_are_valid(tmp_path: Path) -> None:
    folder = tmp_path / "with space: and colon"
    lines = run(folder).splitlines()
    for created in (
        "created ca.pem, ca.key: valid until ",
        "created server.pem, server.key: for localhost, 127.0.0.1, ::1",
        "created admin.pem, admin.key: valid until ",
    ):
        assert [line for line in lines if line.startswith(created)], created
    server, client = map(shlex.split, lines[-2:])
    assert server[:3] == ["tracker", "ingest", "--control"]
    server_endpoint(MemoryReactor(), server[3])
    assert client[:2] == ["tracker-admin", "--control"]
    client_endpoint(MemoryReactor(), client[2])


@pytest.mark.parametrize(
    ("name", "interface", "host"),
    [
        ("tracker.example.org", ":interface=0.0.0.0", "ssl:tracker.example.org:5099:"),
        ("192.0.2.7", ":interface=192.0.2.7", "ssl:192.0.2.7:5099:"),
        ("2001:db8::7", r":interface=2001\:db8\:\:7", r"ssl:2001\:db8\:\:7:5099:"),
        ("127.0.0.1", "", "ssl:127.0.0.1:5099:"),
    ],
)
def test_printed_command_lines_use_the_first_server_name(
    tmp_path: Path, name: str, interface: str, host: str
) -> None:
    server, client = map(shlex.split, run(tmp_path, "--server-name", name).splitlines()[-2:])
    assert server[-1].endswith("ca.pem" + interface)
    assert client[-1].startswith(host)
    server_endpoint(MemoryReactor(), server[-1])
    client_endpoint(MemoryReactor(), client[-1])


# A folder that exists.


def test_existing_files_are_kept(folder: Path) -> None:
    former = content(folder)
    output = run(folder)
    assert content(folder) == former
    assert output.count("kept ") == 3
    assert "created " not in output


def test_client_certificate_is_added_to_an_existing_folder(folder: Path) -> None:
    former = content(folder)
    output = run(folder, "--client", "bob")
    assert output.count("created ") == 1
    assert {name: content(folder)[name] for name in former} == former
    assert is_issued_by(certificate(folder, "bob"), certificate(folder, "ca"))
    assert "bob.key" in output.splitlines()[-1]


@pytest.mark.parametrize("name", ["admin", "server"])
def test_renewed_pair_is_replaced_and_others_are_kept(folder: Path, name: str) -> None:
    former = content(folder)
    output = run(folder, "--renew", name)
    changed = {file for file, data in content(folder).items() if former.get(file) != data}
    assert changed == {f"{name}.key", f"{name}.pem"}
    assert stat.S_IMODE((folder / f"{name}.key").stat().st_mode) == 0o600
    assert f"created {name}.pem" in output


def test_renewed_server_certificate_keeps_its_names(tmp_path: Path) -> None:
    run(tmp_path, "--server-name", "tracker.example.org", "--client", "bob")
    former = certificate(tmp_path, "server")
    run(tmp_path, "--renew", "server")
    assert certificate(tmp_path, "server") != former
    assert server_names(certificate(tmp_path, "server")) == ["tracker.example.org"]
    assert not (tmp_path / "admin.pem").exists()  # it was not requested
    run(tmp_path, "--renew", "server", "--server-name", "192.0.2.7")
    assert server_names(certificate(tmp_path, "server")) == ["192.0.2.7"]


def test_damaged_certificate_can_be_renewed(folder: Path) -> None:
    (folder / "server.pem").write_bytes(b"")
    assert "server.pem contains no certificate" in error_of(folder)
    run(folder, "--renew", "server")
    assert server_names(certificate(folder, "server")) == certs.default_names()


def test_server_name_missing_from_an_existing_certificate_is_an_error(folder: Path) -> None:
    former = content(folder)
    run(folder, "--server-name", "LOCALHOST")
    error = error_of(folder, "--server-name", "localhost", "--server-name", "tracker.example.org")
    assert error == (
        f"{folder}/server.pem is not valid for tracker.example.org. Replace it with --renew server."
    )
    assert content(folder) == former


@pytest.mark.parametrize("name", ["ca", "server", "admin"])
def test_key_without_a_certificate_is_reused_after_an_interruption(
    tmp_path: Path, name: str
) -> None:
    run(tmp_path / "other")
    key = (tmp_path / "other" / f"{name}.key").read_bytes()
    (tmp_path / f"{name}.key").write_bytes(key)
    run(tmp_path)
    assert (tmp_path / f"{name}.key").read_bytes() == key
    assert read_key(key).public_key() == certificate(tmp_path, name).public_key()


def test_expired_certificate_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = utc_now() + timedelta(days=400)
    monkeypatch.setattr(certs, "utc_now", lambda: later)
    output = run(folder)
    assert f"kept admin.pem, admin.key: expired {later - timedelta(days=35):%Y-%m-%d}" in output
    assert "replace it with --renew admin" in output


# Errors.


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--client", "a b"], "--client 'a b': must be 1 to 64 letters"),
        (["--client", ""], "--client '': must be 1 to 64 letters"),
        (["--client", "../x"], "--client '../x': must be 1 to 64 letters"),
        (["--client", ".x"], "--client '.x': must be 1 to 64 letters"),
        (["--client", "*"], "--client '*': must be 1 to 64 letters"),
        (["--client", "a\nb"], r"--client 'a\nb': must be 1 to 64 letters"),
        (["--client", "x" * 65], "1 to 64 letters"),
        (["--client", "ca"], "--client ca: the name is reserved"),
        (["--client", "Server"], "--client Server: the name is reserved"),
        (["--server-name", ""], "--server-name '': must be a host name or an IP address"),
        (["--server-name", "a_b"], "must be a host name or an IP address"),
        (["--server-name", "*.example.org"], "must be a host name or an IP address"),
        (["--server-name", "1.2.3"], "must be a host name or an IP address"),
        (["--server-name", "localhost:5099"], "must be a host name or an IP address"),
        (["--renew", "ca"], "would void all certificates"),
        (["--renew", "bob"], "bob.pem does not exist"),
        (["--renew", "server"], "server.pem does not exist"),
        (["--renew", "../bob"], "--renew '../bob': must be 1 to 64 letters"),
    ],
)
def test_invalid_argument_is_an_error_and_creates_no_file(
    tmp_path: Path, arguments: list[str], error: str
) -> None:
    assert error in error_of(tmp_path, *arguments)
    assert content(tmp_path) == {}


def test_validity_out_of_range_is_a_usage_error(tmp_path: Path) -> None:
    assert "825" in run(tmp_path, "--days", "826", code=2)
    assert "825" in run(tmp_path, "--days", "0", code=2)


def test_file_instead_of_a_folder_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert error_of(file) == f"{file} cannot be created: File exists."
    assert error_of(file / "certs") == f"{file}/certs cannot be created: Not a directory."


def test_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert error_of(tmp_path) == f"{tmp_path}/ca.key cannot be written: Permission denied."


def test_no_temporary_file_remains_after_a_failed_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    former = content(folder)
    monkeypatch.setattr(os, "fsync", refuse)
    error = error_of(folder, "--client", "bob")
    assert error == f"{folder}/bob.key cannot be written: No space left on device."
    assert content(folder) == former


def test_file_that_another_process_creates_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "bob.key"
    file.write_bytes(b"another's")
    with pytest.raises(ValueError, match="File exists"):
        certs._store(file, b"ours", 0o600, replace=False)
    assert content(tmp_path) == {"bob.key": b"another's"}


def test_missing_key_of_the_authority_is_an_error(folder: Path) -> None:
    (folder / "ca.key").unlink()
    run(folder)  # no file is missing that needs it
    former = content(folder)
    for arguments in (["--client", "bob"], ["--renew", "server"]):
        assert "ca.key is missing, and no certificate can be issued" in error_of(folder, *arguments)
    assert content(folder) == former


@pytest.mark.parametrize("arguments", [[], ["--client", "bob"], ["--renew", "server"]])
def test_missing_certificate_of_the_authority_is_an_error(
    folder: Path, arguments: list[str]
) -> None:
    (folder / "ca.pem").unlink()
    former = content(folder)
    assert "ca.pem, which issued server.pem, is missing" in error_of(folder, *arguments)
    assert content(folder) == former


@pytest.mark.parametrize(
    ("name", "replaced", "error"),
    [
        ("ca.key", "key", "does not belong to ca.pem"),
        ("ca.key", "junk", "contains no private key"),
        ("ca.pem", "junk", "contains no certificate"),
        (
            "ca.pem",
            "certificate",
            "server.pem was issued by another authority. Replace it with --renew server",
        ),
        ("server.key", "key", "does not belong to server.key. Replace it with --renew server"),
        (
            "server.key",
            "none",
            "has no key (server.key is missing). Replace it with --renew",
        ),
        ("admin.pem", "certificate", "does not belong to admin.key. Replace it with --renew admin"),
    ],
)
def test_mismatched_or_damaged_files_are_an_error(
    folder: Path, tmp_path: Path, name: str, replaced: str, error: str
) -> None:
    file = folder / name
    file.unlink()
    if replaced == "junk":
        file.write_bytes(b"junk")
    elif replaced != "none":
        other = certify(tmp_path, "192.0.2.1")
        suffix = ".pem" if replaced == "certificate" else ".key"
        file.write_bytes(other.with_suffix(suffix).read_bytes())
    former = content(folder)
    assert error in error_of(folder, "--client", "admin", "--client", "bob")
    assert content(folder) == former


def test_expired_authority_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = utc_now() + timedelta(days=AUTHORITY_DAYS + 1)
    monkeypatch.setattr(certs, "utc_now", lambda: later)
    assert "ca.pem has expired. Use another folder" in error_of(folder, "--client", "bob")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost", True),
        ("a-b.example.org", True),
        ("xn--tda.example", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("fe80::1%eth0", False),
        ("a" * 64, False),
        (".".join(["a" * 60] * 4), True),
        (".".join(["a" * 60] * 5), False),
        ("-a", False),
        ("a-", False),
        ("a..b", False),
        ("a.", False),
        ("ü.example", False),
        ("127.1", False),
        ("localhost\n", False),
    ],
)
def test_server_name_is_a_host_name_or_an_ip_address(name: str, expected: bool) -> None:
    assert is_server_name(name) is expected
