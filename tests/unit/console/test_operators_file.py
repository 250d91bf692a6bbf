"""The operators' file, and the key of sessions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from tracker.console.loginattempts import LoginAttempts
from tracker.console.operators import (
    InvalidOperatorsFile,
    Operator,
    Operators,
    PasswordHash,
    read_operators,
    write_operators,
)
from tracker.console.sessions import session_key

HASH = "scrypt:15:8:3:AAAAAAAAAAAAAAAAAAAAAA==:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "operators"


def write(file: Path, text: str, mode: int = 0o600) -> None:
    file.write_text(text)
    file.chmod(mode)


def test_password_matches_only_its_own_hash() -> None:
    hashed = PasswordHash.of("correct horse battery")
    assert hashed.matches("correct horse battery")
    assert not hashed.matches("correct horse batterz")
    assert not hashed.matches("")
    assert "correct" not in hashed.to_text()
    assert PasswordHash.from_text(hashed.to_text()) == hashed
    other = PasswordHash.of("correct horse battery")
    assert other.to_text() != hashed.to_text()
    assert other.stamp != hashed.stamp


def test_operators_are_written_and_read(file: Path) -> None:
    anna = Operator("anna", "operate", PasswordHash.from_text(HASH))
    ben = Operator("ben@example.org", "read", PasswordHash.from_text(HASH))
    write_operators(file, {"ben@example.org": ben, "anna": anna})
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_operators(file) == {"anna": anna, "ben@example.org": ben}
    assert os.listdir(file.parent) == [file.name]


def test_rewritten_file_stays_readable_for_its_group(file: Path) -> None:
    write(file, f"anna operate {HASH}\n", 0o640)
    write_operators(file, read_operators(file))
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("anna\n", "line 1 is not NAME PERMISSION HASH"),
        (f"# who\n\nanna admin {HASH}\n", "line 3 is not NAME PERMISSION HASH"),
        (f"an/na read {HASH}\n", "line 1 is not NAME PERMISSION HASH"),
        ("anna read secret\n", "line 1 is not NAME PERMISSION HASH"),
        (f"anna read {HASH.replace('scrypt', 'plain')}\n", "line 1 is not NAME PERMISSION HASH"),
        # A check of this hash would take four gigabytes.
        (f"anna read {HASH.replace(':15:', ':22:')}\n", "line 1 is not NAME PERMISSION HASH"),
        (f"anna read {HASH}\nanna read {HASH}\n", "line 2: duplicate name anna"),
    ],
)
def test_reason_for_refusing_a_file_does_not_quote_its_content(
    file: Path, text: str, reason: str
) -> None:
    write(file, text)
    with pytest.raises(InvalidOperatorsFile) as caught:
        Operators(file)
    assert str(caught.value) == f"{file}: {reason}"


def test_file_that_others_can_read_is_refused(file: Path) -> None:
    write(file, f"anna read {HASH}\n", 0o644)
    with pytest.raises(InvalidOperatorsFile, match="chmod o="):
        Operators(file)


def test_file_without_operators_is_refused(file: Path) -> None:
    write(file, "# empty\n")
    with pytest.raises(InvalidOperatorsFile, match="console-operator add"):
        Operators(file)


def test_changed_file_is_read_unless_it_is_malformed(file: Path) -> None:
    write(file, f"anna read {HASH}\n")
    operators = Operators(file)
    write(file, f"anna read {HASH}\nben read {HASH}\n")
    assert operators.get("ben") is not None
    write(file, "what is that\n")
    assert operators.get("anna") is not None
    write(file, f"ben read {HASH}\n")
    assert operators.get("anna") is None


def test_key_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = session_key(path)
    assert (len(key), session_key(path)) == (32, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert session_key(None) != session_key(None)


@pytest.mark.parametrize(("content", "mode"), [(b"short", 0o600), (b"x" * 32, 0o644)])
def test_key_file_that_is_malformed_or_readable_by_others_is_refused(
    tmp_path: Path, content: bytes, mode: int
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ValueError, match=str(path)):
        session_key(path)
    with pytest.raises(ValueError, match="none"):
        session_key(tmp_path / "none" / "key")


def test_each_attempt_expires_after_the_period() -> None:
    clock = Clock()
    attempts = LoginAttempts(clock, 2, 10)
    attempts.add("a")
    clock.advance(4)
    attempts.add("a")
    assert (attempts.wait("a"), attempts.wait("b")) == (6, 0)
    clock.advance(6)
    assert attempts.wait("a") == 0
    attempts.add("a")
    assert attempts.wait("a") == 4
    attempts.remove_last("a")
    assert attempts.wait("a") == 0


def test_number_of_remembered_clients_is_limited() -> None:
    attempts = LoginAttempts(Clock(), 1, 10)
    for number in range(20_000):
        attempts.add(str(number))
    assert len(attempts._times) == 10_000
    assert attempts.wait("19999") == 10
