"""Secrets from environment variables, and from files that variables or options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tracker.config import ConfigError, secret, sink_url
from tracker.redis.address import redis_address

Read = Callable[[str | None, Mapping[str, str]], str]


def redis_host(given: str | None, environ: Mapping[str, str]) -> str:
    return redis_address(given, environ).host


def token(given: str | None, environ: Mapping[str, str]) -> str:
    return secret("--token-file", given, environ, "TOKEN")


CASES: list[tuple[Read, str, str]] = [
    (redis_host, "REDIS_URL", "redis://{}"),
    (sink_url, "TRACKER_SINK", "{}"),
    (token, "TOKEN", "{}"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "credential"


@pytest.mark.parametrize(("read", "variable", "form"), CASES)
def test_secret_is_read_from_the_variable(read: Read, variable: str, form: str) -> None:
    assert read(None, {variable: form.format("one")}) == "one"


@pytest.mark.parametrize(("read", "variable", "form"), CASES)
def test_secret_in_a_file_precedes_the_variable(
    read: Read, variable: str, form: str, file: Path
) -> None:
    file.write_text(form.format("two") + "\n")
    environ = {variable: form.format("one"), f"{variable}_FILE": str(file)}
    assert read(None, environ) == "two"


@pytest.mark.parametrize("content", ["", "\n", " \n"])
@pytest.mark.parametrize(("read", "variable", "form"), CASES)
def test_empty_secret_file_is_ignored(
    read: Read, variable: str, form: str, content: str, file: Path
) -> None:
    file.write_text(content)
    environ = {variable: form.format("one"), f"{variable}_FILE": str(file)}
    assert read(None, environ) == "one"


@pytest.mark.parametrize(("read", "variable", "form"), CASES)
def test_unreadable_secret_file_is_reported_with_its_variable(
    read: Read, variable: str, form: str, file: Path
) -> None:
    environ = {variable: form.format("one"), f"{variable}_FILE": str(file)}
    with pytest.raises(ConfigError, match=f"^{variable}_FILE {file}: "):
        read(None, environ)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=f"^{variable}_FILE {file}: "):
        read(None, environ)


def test_option_precedes_environment_variables(file: Path) -> None:
    environ = {"REDIS_URL": "redis://one", "REDIS_URL_FILE": str(file), "TRACKER_SINK": "x:y"}
    assert redis_host("redis://given", environ) == "given"
    assert sink_url("sqlite:x", environ | {"TRACKER_SINK_FILE": str(file)}) == "sqlite:x"


def test_empty_secret_file_given_as_an_option_is_rejected(file: Path) -> None:
    file.write_text("\n")
    with pytest.raises(ConfigError, match=r"^--token-file: .*TOKEN"):
        token(str(file), {"TOKEN": "one"})


def test_sink_is_required_and_redis_defaults_to_localhost() -> None:
    with pytest.raises(ConfigError, match="--sink"):
        sink_url(None, {})
    assert redis_host(None, {}) == "127.0.0.1"
