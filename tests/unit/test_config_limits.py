"""Limits and choices from options, at their bounds and beyond them."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from tracker.config import ConfigError, choice, settings
from tracker.durations import format_duration
from tracker.limits import Limits
from tracker.settings import format_size, options_of

#: Option → its minimum and its maximum.
BOUNDS: dict[str, tuple[float, float]] = {
    "frame-bytes": (64, 1_048_576),
    "command-frame-bytes": (64, 1_048_576),
    "records": (1, 255),
    "buffer-bytes": (64, 16_777_216),
    "connections": (1, 10_000_000),
    "connections-per-address": (1, 10_000_000),
    "connection-rate": (1, 1_000_000),
    "connection-rate-per-address": (1, 1_000_000),
    "datagrams-under-way": (1, 1_000_000),
    "message-rate": (0.1, 1_000_000),
    "message-bytes-rate": (1, 1_073_741_824),
    "message-burst": (0.1, 3600),
    "message-bytes": (64, 1_048_576),
    "kept-memory": (1 << 20, 1 << 36),
    "peer-work": (0.0001, 1),
    "spare-work": (0.001, 1),
    "login-timeout": (0.1, 3600),
    "idle-timeout": (1, 604_800),
}
#: Limits that are durations.
TIMES = {"message-burst", "login-timeout", "idle-timeout"}
DEFAULTS = {
    "frame-bytes": 8192,
    "command-frame-bytes": 65_536,
    "records": 255,
    "buffer-bytes": 16_384,
    "connections": 100_000,
    "connections-per-address": None,
    "connection-rate": 1000,
    "connection-rate-per-address": 500,
    "datagrams-under-way": 1000,
    "message-rate": 100.0,
    "message-bytes-rate": 65_536.0,
    "message-burst": "10s",
    "message-bytes": 8192,
    "kept-memory": "64M",
    "peer-work": 0.05,
    "spare-work": 0.1,
    "login-timeout": "30s",
    "idle-timeout": "10m",
}
AT_BOUNDS = [(name, bound) for name, both in BOUNDS.items() for bound in both]
OUT_OF_BOUNDS = [
    *((name, low - (0.01 if isinstance(low, float) else 1)) for name, (low, _) in BOUNDS.items()),
    *((name, high + 1) for name, (_, high) in BOUNDS.items()),
]


def options(**changed: Any) -> dict[str, Any]:
    """Return the options of a process, with some of them given."""
    defaults: dict[str, Any] = {name: default for name, default, *_ in options_of(Limits)}
    return {**defaults, **changed}


def test_every_limit_has_tested_bounds_and_a_tested_default() -> None:
    assert {name for name, *_ in options_of(Limits)} == set(BOUNDS)
    assert options() == DEFAULTS


def test_missing_options_have_their_defaults() -> None:
    assert settings(Limits, options()) == Limits()


def test_every_option_sets_the_limit_of_its_name() -> None:
    given = {name: high for name, (_, high) in BOUNDS.items()}
    assert attrs.asdict(settings(Limits, given)) == {
        name.replace("-", "_"): high for name, high in given.items()
    }


def test_options_that_set_no_limit_are_ignored() -> None:
    assert settings(Limits, {**options(), "redis": None, "listen": []}) == Limits()


@pytest.mark.parametrize(("name", "value"), AT_BOUNDS)
def test_limit_at_its_bounds_is_accepted(name: str, value: float) -> None:
    limits = settings(Limits, options(**{name: value}))
    assert getattr(limits, name.replace("-", "_")) == value


@pytest.mark.parametrize(("name", "value"), OUT_OF_BOUNDS)
def test_limit_out_of_bounds_is_reported_with_its_option(name: str, value: float) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(Limits, options(**{name: value}))
    message = str(raised.value)
    assert message.startswith(f"--{name}: ")
    shown = {"kept-memory": format_size(int(value))}.get(name, f"{value:,}")
    assert message.endswith(f", not {format_duration(value) if name in TIMES else shown}")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["login-timeout", "idle-timeout"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -0.0])
def test_value_that_is_not_a_finite_number_is_rejected(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name}: "):
        settings(Limits, options(**{name: value}))


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 1 << 20), ("2048k", 2 << 20), ("64M", 64 << 20), ("2G", 2 << 30)]
)
def test_size_may_have_a_unit(text: str, size: int) -> None:
    assert settings(Limits, options(**{"kept-memory": text})).kept_memory == size


@pytest.mark.parametrize("text", ["", "64 M", "64MB", "-1M", "1.5M", "none", "1e9", "M", "9" * 13])
def test_malformed_size_is_reported_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(Limits, options(**{"kept-memory": text}))
    expected = f"--kept-memory: must be a size like 512M or 2G, not {text!r}"
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1, "1"), (1025, "1025"), (1 << 20, "1M"), (3 << 29, "1536M")]
)
def test_size_is_shown_with_the_largest_exact_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("value", ["all", "redis"])
def test_allowed_choice_is_returned(value: str) -> None:
    assert choice({"device-authority": value}, "device-authority", "all", "redis") == value


@pytest.mark.parametrize("value", ["", "ALL", "all ", "none", "a\nb"])
def test_other_choice_is_reported_with_the_allowed_ones(value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        choice({"device-authority": value}, "device-authority", "all", "redis")
    assert str(raised.value) == f"--device-authority: must be all or redis, not {value!r}"
    assert "\n" not in str(raised.value)
