"""``tracker-admin directus``: what is wrong with a command line, told before anybody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tracker.admin.cli import main
from tracker.admin.directus.files import is_open_to_all, make_secret, read_secret

URL = "http://127.0.0.1:8055"


def told(*arguments: str, variables: dict[str, str] | None = None) -> str:
    """The last line, of a command line that is not understood."""
    ended = CliRunner().invoke(main, ["directus", *arguments], env=variables)
    assert ended.exit_code == 2, ended.output
    (line,) = ended.output.splitlines()
    return line.removeprefix("tracker-admin: ").partition(" (see ")[0]


@pytest.fixture
def token(tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text("a-token\n")
    return str(file)


@pytest.mark.parametrize("verb", ["setup", "check"])
def test_what_is_not_understood(verb: str, token: str, tmp_path: Path) -> None:
    file = tmp_path / "missing"
    assert told(verb) == "Missing option '--url'."
    assert told(verb, "--url", URL) == "Missing option '--token-file'."
    assert told(verb, "--token-file", token, variables={"DIRECTUS_URL": "x"}) == (
        "--url: must be a URL like http://127.0.0.1:8055"
    )
    assert told(verb, "--url", URL, "--token-file", str(file)) == (
        f"--token-file: {file}: No such file or directory"
    )
    assert told(verb, "--url", URL, "--token-file", str(tmp_path)) == (
        f"--token-file: {tmp_path}: Is a directory"
    )
    for url in ("http://127.0.0.1:9130", "http://127.0.0.1:9130/"):
        assert told(verb, "--url", URL, "--token-file", token, "--bridge-url", url) == (
            "--bridge-url: must be like http://127.0.0.1:9130/commands"
        )


@pytest.mark.parametrize("option", ["--token-file", "--secret-file", "--bridge-token-file"])
@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff", b"x" * 5000])
def test_a_file_that_holds_no_secret(
    option: str, content: bytes, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    line = told("check", "--url", URL, "--token-file", token, option, str(file))
    assert line == f"{option}: {file}: must hold one line of printable ASCII without spaces"


def test_a_check_makes_no_files(token: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    line = told("check", "--url", URL, "--token-file", token, "--secret-file", str(file))
    assert line == f"--secret-file: {file}: No such file or directory"
    assert not file.exists()


def test_a_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = make_secret(file)
    assert read_secret(file) == secret
    assert file.stat().st_mode & 0o777 == 0o600
    assert not is_open_to_all(file)
    with pytest.raises(FileExistsError):
        make_secret(file)
    assert make_secret(tmp_path / "another") != secret
    file.chmod(0o644)
    assert is_open_to_all(file)


def test_a_secret_that_cannot_be_written(token: str, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "secret"
    line = told("setup", "--url", URL, "--token-file", token, "--secret-file", str(file))
    assert line == f"--secret-file: {file}: No such file or directory"
