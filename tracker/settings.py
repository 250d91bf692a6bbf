"""Numeric settings: each is an option, with bounds that are checked at start."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, fields, validators


def setting(default: float, low: float, high: float, help: str) -> Any:  # noqa: A002
    """Return an attrs field for a number.

    :param low: minimum value.
    :param high: maximum value.
    :param help: help text of the option.
    """
    return field(default=default, validator=_between(low, high), metadata={"help": help})


def optional(low: int, high: int, help: str) -> Any:  # noqa: A002
    """Return an attrs field for an integer whose default is None, for a computed default.

    The arguments are those of :func:`setting`.
    """
    check = validators.optional(_between(low, high))
    return field(default=None, validator=check, metadata={"help": help})


def options_of(cls: type[Any]) -> list[tuple[str, Any, str]]:
    """Return option name, default and help text of each setting of a class."""
    return [
        (attribute.name.replace("_", "-"), attribute.default, attribute.metadata["help"])
        for attribute in fields(cls)
    ]


def _between(low: float, high: float) -> Any:
    def check(instance: Any, attribute: Attribute[Any], value: float) -> None:
        if not low <= value <= high:
            shown = f"{value:,}".removesuffix(".0")
            raise ValueError(f"must be between {low:,} and {high:,}, not {shown}")

    return check
