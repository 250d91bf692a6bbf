"""Usage errors of ``tracker-admin directus``, found before any request, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tracker.admin.cli import main
from tracker.admin.directus.files import is_readable_by_all, make_secret, read_secret

URL = "http://127.0.0.1:8055"


def usage_error(*arguments: str, variables: dict[str, str] | None = None) -> str:
    """Return the error of a command line that is wrong."""
    ended = CliRunner().invoke(main, ["directus", *arguments], env=variables)
    assert ended.exit_code == 2, ended.output
    (line,) = ended.output.splitlines()
    return line.removeprefix("tracker-admin: ").partition(" See ")[0].removesuffix(".")


@pytest.fixture
def token(tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text("a-token\n")
    return str(file)


@pytest.mark.parametrize("verb", ["setup", "check"])
def test_invalid_option_is_a_usage_error(verb: str, token: str, tmp_path: Path) -> None:
    file = tmp_path / "missing"
    assert usage_error(verb) == "Missing option '--url'"
    assert usage_error(verb, "--url", URL) == "Missing option '--token-file'"
    assert usage_error(verb, "--token-file", token, variables={"DIRECTUS_URL": "x"}) == (
        "--url: must be a URL like http://127.0.0.1:8055"
    )
    assert usage_error(verb, "--url", URL, "--token-file", str(file)) == (
        f"--token-file: {file}: No such file or directory"
    )
    assert usage_error(verb, "--url", URL, "--token-file", str(tmp_path)) == (
        f"--token-file: {tmp_path}: Is a directory"
    )
    for url in ("http://127.0.0.1:9130", "http://127.0.0.1:9130/"):
        assert usage_error(verb, "--url", URL, "--token-file", token, "--bridge-url", url) == (
            "--bridge-url: must be a URL with a path, such as http://127.0.0.1:9130/commands"
        )


@pytest.mark.parametrize("option", ["--token-file", "--secret-file", "--bridge-token-file"])
@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff", b"x" * 5000])
def test_file_without_a_secret_is_a_usage_error(
    option: str, content: bytes, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    line = usage_error("check", "--url", URL, "--token-file", token, option, str(file))
    assert line == f"{option}: {file}: must contain one line of printable ASCII without spaces"


def test_check_does_not_create_files(token: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    line = usage_error("check", "--url", URL, "--token-file", token, "--secret-file", str(file))
    assert line == f"--secret-file: {file}: No such file or directory"
    assert not file.exists()


def test_new_secret_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = make_secret(file)
    assert read_secret(file) == secret
    assert file.stat().st_mode & 0o777 == 0o600
    assert not is_readable_by_all(file)
    with pytest.raises(FileExistsError):
        make_secret(file)
    assert make_secret(tmp_path / "another") != secret
    file.chmod(0o644)
    assert is_readable_by_all(file)


def test_secret_file_in_a_missing_folder_is_a_usage_error(token: str, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "secret"
    line = usage_error("setup", "--url", URL, "--token-file", token, "--secret-file", str(file))
    assert line == f"--secret-file: {file}: No such file or directory"
