"""Durations and sizes on command lines."""

from __future__ import annotations

import pytest

from tracker import config
from tracker.config import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("90s", 90),
        ("30m", 1800),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1.5h", 5400),
        ("none", None),
    ],
)
def test_duration_is_a_number_with_a_unit(text: str, seconds: float | None) -> None:
    assert config.duration("--retain", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "24", "h", "0s", "-1h", "500ms", "24H", "24 h", "1w", "36501d", "٣h", "nones"]
)
def test_invalid_duration_is_reported(text: str) -> None:
    with pytest.raises(ConfigError, match="--retain: ") as raised:
        config.duration("--retain", text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("1048576", 1 << 20),
        ("1024k", 1 << 20),
        ("512M", 1 << 29),
        ("2G", 1 << 31),
        ("none", None),
    ],
)
def test_size_is_a_number_with_a_unit(text: str, bytes_: int | None) -> None:
    assert config.size("--retain-bytes", text) == bytes_


@pytest.mark.parametrize("text", ["", "0", "1048575", "1023k", "G", "2g", "2GB", "-1G", "1.5G"])
def test_invalid_size_is_reported(text: str) -> None:
    with pytest.raises(ConfigError, match="--retain-bytes: "):
        config.size("--retain-bytes", text)
