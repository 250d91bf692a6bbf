"""The operators' file, and the key of sessions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from tracker.console.attempts import Attempts
from tracker.console.operators import (
    BadOperators,
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


def test_a_password_fits_its_own_hash_only() -> None:
    hashed = PasswordHash.of("correct horse battery")
    assert hashed.fits("correct horse battery")
    assert not hashed.fits("correct horse batterz")
    assert not hashed.fits("")
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


def test_the_group_of_a_file_may_go_on_reading_it(file: Path) -> None:
    write(file, f"anna operate {HASH}\n", 0o640)
    write_operators(file, read_operators(file))
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("anna\n", "line 1 is not NAME PERMISSION HASH"),
        (f"# who\n\nanna admin {HASH}\n", "line 3 is not NAME PERMISSION HASH"),
        (f"an/na read {HASH}\n", "line 1 is not NAME PERMISSION HASH"),
        ("anna read secret\n", "line 1 is not NAME PERMISSION HASH"),
        (f"anna read {HASH.replace('scrypt', 'plain')}\n", "line 1 is not NAME PERMISSION HASH"),
        # It would take four gigabytes to check.
        (f"anna read {HASH.replace(':15:', ':22:')}\n", "line 1 is not NAME PERMISSION HASH"),
        (f"anna read {HASH}\nanna read {HASH}\n", "line 2: anna is there twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_what_is_in_it(
    file: Path, text: str, complaint: str
) -> None:
    write(file, text)
    with pytest.raises(BadOperators) as caught:
        Operators(file)
    assert str(caught.value) == f"{file}: {complaint}"


def test_a_file_that_everybody_may_read_is_refused(file: Path) -> None:
    write(file, f"anna read {HASH}\n", 0o644)
    with pytest.raises(BadOperators, match="chmod o="):
        Operators(file)


def test_a_file_without_anybody_is_refused(file: Path) -> None:
    write(file, "# nobody\n")
    with pytest.raises(BadOperators, match="console-operator add"):
        Operators(file)


def test_changes_are_heeded_and_mistakes_are_not(file: Path) -> None:
    write(file, f"anna read {HASH}\n")
    operators = Operators(file)
    write(file, f"anna read {HASH}\nben read {HASH}\n")
    assert operators.get("ben") is not None
    write(file, "what is that\n")
    assert operators.get("anna") is not None
    write(file, f"ben read {HASH}\n")
    assert operators.get("anna") is None


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = session_key(path)
    assert (len(key), session_key(path)) == (32, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert session_key(None) != session_key(None)


@pytest.mark.parametrize(("content", "mode"), [(b"short", 0o600), (b"x" * 32, 0o644)])
def test_a_key_that_is_none_is_refused(tmp_path: Path, content: bytes, mode: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ValueError, match=str(path)):
        session_key(path)
    with pytest.raises(ValueError, match="none"):
        session_key(tmp_path / "none" / "key")


def test_attempts_are_forgotten_one_after_another() -> None:
    clock = Clock()
    attempts = Attempts(clock, 2, 10)
    attempts.add("a")
    clock.advance(4)
    attempts.add("a")
    assert (attempts.wait("a"), attempts.wait("b")) == (6, 0)
    clock.advance(6)
    assert attempts.wait("a") == 0
    attempts.add("a")
    assert attempts.wait("a") == 4
    attempts.take_back("a")
    assert attempts.wait("a") == 0


def test_so_many_are_remembered_and_no_more() -> None:
    attempts = Attempts(Clock(), 1, 10)
    for number in range(20_000):
        attempts.add(str(number))
    assert len(attempts._by) == 10_000
    assert attempts.wait("19999") == 10
