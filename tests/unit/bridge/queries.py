"""Filters and values with the rules of Directus on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any, Final
from uuid import UUID

Row = dict[str, Any]


class RequestError(Exception):
    """An error response to a request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def combined(
    how: Callable[[Iterable[bool]], bool], parts: Sequence[Callable[[Row], bool]]
) -> Callable[[Row], bool]:
    return lambda row: how(part(row) for part in parts)


def _compare(than: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return a comparison that is false for NULL, as in SQL."""
    return lambda value, other: value is not None and other is not None and than(value, other)


_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "_eq": _compare(lambda value, other: value == other),
    "_neq": _compare(lambda value, other: value != other),
    "_in": lambda value, others: value is not None and value in others,
    "_nin": lambda value, others: value is not None and value not in others,
    "_lt": _compare(lambda value, other: value < other),
    "_lte": _compare(lambda value, other: value <= other),
    "_gt": _compare(lambda value, other: value > other),
    "_gte": _compare(lambda value, other: value >= other),
    "_null": lambda value, wanted: (value is None) is wanted,
    "_nnull": lambda value, wanted: (value is not None) is wanted,
}


def operators(kind: str) -> set[str]:
    """Return the filter operators for a type; only numbers and times can be compared by size."""
    comparing = {"_lt", "_lte", "_gt", "_gte"}
    if kind in ("integer", "timestamp"):
        return set(_OPERATORS)
    if kind == "boolean":
        return set(_OPERATORS) - comparing - {"_in", "_nin"}
    return set(_OPERATORS) - comparing


def check_filter(wanted: Mapping[str, Any]) -> None:
    for name, what in wanted.items():
        if name in ("_and", "_or"):
            for one in what:
                check_filter(one)
            continue
        for operator, value in what.items():
            if operator in ("_in", "_nin") and not value:
                raise RequestError(
                    *(400, "INVALID_QUERY"),
                    f'Invalid query. "{operator}" has to be an array of values.',
                )
            if value == "":
                raise RequestError(
                    *(400, "INVALID_QUERY"),
                    f'Invalid query. You can\'t filter for an empty string in "{operator}".',
                )


def condition(name: str, operator: str, value: Any, kind: str) -> Callable[[Row], bool]:
    if kind == "timestamp" and isinstance(value, str):
        value = moment(value)
    holds = _OPERATORS[operator]
    return lambda row: holds(row[name], value)


def order(name: str, null_is_least: bool) -> Any:
    """Return a sort key for an ascending order."""

    def compare(one: Row, other: Row) -> int:
        a, b = one[name], other[name]
        if a is None or b is None:
            return ((a is None) - (b is None)) * (-1 if null_is_least else 1)
        return int(a > b) - int(a < b)

    return cmp_to_key(compare)


def is_uuid(value: Any) -> bool:
    try:
        return str(UUID(str(value))) == str(value).lower()
    except ValueError:
        return False


def is_of(kind: str, value: Any) -> bool:
    try:
        if kind == "timestamp":
            moment(value)
        elif kind == "integer":
            int(value)
    except (ValueError, TypeError):
        return False
    return True


def moment(text: str) -> str:
    """Return a time in the form of Directus' responses."""
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def error(code: str, message: str) -> Any:
    return {"errors": [{"message": message, "extensions": {"code": code}}]}


def no_collection(name: str) -> RequestError:
    return RequestError(
        *(403, "FORBIDDEN"),
        f'You don\'t have permission to access collection "{name}" or it does not exist. '
        "Queried in root.",
    )


def no_item() -> RequestError:
    return RequestError(403, "FORBIDDEN", "You don't have permission to access this.")


def invalid(name: str, how: str) -> RequestError:
    return RequestError(
        400, "FAILED_VALIDATION", f'Validation failed for field "{name}". Value {how}.'
    )


def parsed(query: Mapping[str, str]) -> dict[str, Any]:
    """Convert the query of a URL to the form of a query in a body."""
    parsed: dict[str, Any] = dict(query)
    for name in ("fields", "sort"):
        if name in query:
            parsed[name] = query[name].split(",")
    if "filter" in query:
        try:
            parsed["filter"] = json.loads(query["filter"])
        except ValueError:
            raise RequestError(
                400, "INVALID_QUERY", "Invalid query. Invalid JSON for filter object."
            ) from None
    return parsed
