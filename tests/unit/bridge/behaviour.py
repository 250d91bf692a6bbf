"""Tests of the behaviour of Directus on which the bridge relies.

They run with the double in the unit tests and with a real Directus in ``tests/directus``; the
fixture ``subject`` provides one of the two.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol
from uuid import uuid4

import pytest
from pytest_twisted import ensureDeferred

from tests.unit.bridge.items import create, update_item
from tracker.bridge.rest import (
    DirectusClient,
    DirectusError,
)

IMEI = "356307042441013"
NO_ROW = "00000000-0000-4000-8000-000000000000"
DENIED = ("DirectusDenied", 403, "FORBIDDEN")


class Subject(Protocol):
    """Clients of a prepared Directus without rows, each with the token of another user."""

    admin: DirectusClient
    bridge: DirectusClient
    operator: DirectusClient
    unprivileged: DirectusClient
    unknown: DirectusClient
    """A client with an invalid token."""


async def fails(request: Awaitable[Any]) -> tuple[str, int | None, str]:
    """Return class name, status and code of the error of a request."""
    with pytest.raises(DirectusError) as caught:
        await request
    error = caught.value
    return type(error).__name__, error.status, error.code


async def command(subject: Subject, text: str = "getinfo", **more: Any) -> str:
    """Create a row, and return its id."""
    made = await create(subject.admin, "commands", {"imei": IMEI, "text": text, **more})
    assert made is not None
    key: str = made["id"]
    return key


async def column(subject: Subject, name: str, **query: Any) -> list[Any]:
    """Return the values of a field in the rows that match a query."""
    rows = await subject.bridge.get_items("commands", fields=[name], **query)
    return [row[name] for row in rows]


@ensureDeferred
async def test_new_row_has_its_defaults(subject: Subject) -> None:
    made = await create(subject.operator, "commands", {"imei": IMEI, "text": "getinfo"})
    assert made is not None
    assert made.pop("id")
    assert made.pop("user_created")
    assert made.pop("date_created").endswith("Z")
    assert made == {
        "imei": IMEI,
        "text": "getinfo",
        "hex": None,
        "status": "pending",
        **dict.fromkeys(
            (
                *("codec", "timeout", "expires_at", "instance", "response", "reason"),
                *("routed_at", "delivered_at", "finished_at"),
            )
        ),
    }


@ensureDeferred
async def test_operator_creates_commands_and_cannot_change_their_status(
    subject: Subject,
) -> None:
    row = {"imei": IMEI, "text": "getinfo", "status": "responded"}
    assert await fails(create(subject.operator, "commands", row)) == DENIED
    key = await command(subject)
    assert await fails(update_item(subject.operator, "commands", key, {"text": "x"})) == DENIED
    assert await fails(subject.operator.request("DELETE", f"/items/commands/{key}")) == DENIED
    assert await column(subject, "text") == ["getinfo"]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "getinfo"},
        {"imei": None, "text": "getinfo"},
        {"imei": IMEI[2:], "text": "getinfo"},
        {"imei": "not-a-number-00", "text": "getinfo"},
    ],
    ids=str,
)
@ensureDeferred
async def test_row_with_an_invalid_field_is_refused(subject: Subject, row: Any) -> None:
    refused = ("DirectusRefused", 400, "FAILED_VALIDATION")
    assert await fails(create(subject.admin, "commands", row)) == refused
    assert await column(subject, "id") == []


@ensureDeferred
async def test_key_of_a_new_row_must_be_unique(subject: Subject) -> None:
    key = str(uuid4())
    assert await command(subject, id=key) == key
    twice = ("DirectusRefused", 400, "RECORD_NOT_UNIQUE")
    assert await fails(command(subject, id=key)) == twice
    assert await fails(command(subject, id="no-uuid")) == DENIED


@ensureDeferred
async def test_many_rows_can_be_created_in_one_request(subject: Subject) -> None:
    rows = [{"imei": IMEI, "text": str(number)} for number in range(3)]
    made = await subject.admin.request("POST", "/items/commands", rows)
    assert {row["text"] for row in made} == {"0", "1", "2"}


@ensureDeferred
async def test_value_that_cannot_be_stored_is_an_internal_error(subject: Subject) -> None:
    key = await command(subject)
    for data in ({"response": "a NUL: \0"}, {"finished_at": "no time"}):
        failed = await fails(update_item(subject.bridge, "commands", key, data))
        assert failed == ("DirectusDown", 500, "INTERNAL_SERVER_ERROR")


@ensureDeferred
async def test_value_that_is_too_long_is_refused(subject: Subject) -> None:
    key = await command(subject)
    failed = await fails(update_item(subject.bridge, "commands", key, {"status": "x" * 17}))
    assert failed == ("DirectusRefused", 400, "VALUE_TOO_LONG")


@ensureDeferred
async def test_query_returns_the_rows_that_match_its_filter(subject: Subject) -> None:
    rows = (("a", None), ("b", 10), ("c", 20), ("d", 30))
    keys = {name: await command(subject, name, timeout=timeout) for name, timeout in rows}
    for name, status in (("b", "routed"), ("c", "failed")):
        data = {"status": status, "instance": f"vm-{name}"}
        await update_item(subject.bridge, "commands", keys[name], data)
    await update_item(
        subject.bridge, "commands", keys["d"], {"routed_at": "2026-11-22T10:00:00.500+00:00"}
    )
    for condition, expected in (
        ({"status": {"_eq": "pending"}}, "ad"),
        ({"status": {"_in": ["routed", "failed"]}}, "bc"),
        ({"id": {"_in": [keys["a"], keys["c"], NO_ROW]}}, "ac"),
        ({"id": {"_nin": [keys["a"], keys["c"], NO_ROW]}}, "bd"),
        ({"id": {"_eq": keys["a"]}, "status": {"_eq": "routed"}}, ""),
        ({"instance": {"_neq": "vm-b"}}, "c"),
        ({"instance": {"_nin": ["vm-b"]}}, "c"),
        ({"_and": [{"status": {"_eq": "pending"}}, {"timeout": {"_gt": 20}}]}, "d"),
        ({"_or": [{"text": {"_eq": "a"}}, {"_and": [{"timeout": {"_gte": 30}}]}]}, "ad"),
        ({"timeout": {"_lt": 20, "_gt": 5}}, "b"),
        ({"timeout": {"_lte": 20}}, "bc"),
        ({"routed_at": {"_null": True}}, "abc"),
        ({"routed_at": {"_null": False}}, "d"),
        ({"routed_at": {"_nnull": True}}, "d"),
        ({"routed_at": {"_eq": "2026-11-22T10:00:00.500Z"}}, "d"),
        ({"routed_at": {"_lt": "2026-11-22T10:00:00.501Z"}}, "d"),
        ({"routed_at": {"_lt": "2026-11-22T10:00:00.500Z"}}, ""),
        ({"routed_at": {"_gt": "2026-11-22T11:00:00.499+01:00"}}, "d"),
        ({}, "abcd"),
    ):
        found = await column(subject, "text", filter=condition)
        assert "".join(sorted(found)) == expected, condition


@ensureDeferred
async def test_texts_and_keys_cannot_be_compared_by_size(subject: Subject) -> None:
    """Pages can therefore be ordered by time, but not by key."""
    for name, value in (("text", "a"), ("imei", IMEI), ("status", "a"), ("id", NO_ROW)):
        for operator in ("_lt", "_lte", "_gt", "_gte"):
            request = subject.bridge.get_items("commands", filter={name: {operator: value}})
            assert await fails(request) == ("DirectusRefused", 400, "INVALID_QUERY")


@ensureDeferred
async def test_rows_are_read_page_by_page_in_order_of_time(subject: Subject) -> None:
    for text in "abc":
        await command(subject, text)
    order: dict[str, Any] = {"sort": ["-date_created", "id"], "limit": 2}
    page = await subject.bridge.get_items(
        "commands", fields=["id", "text", "date_created"], **order
    )
    last = page[-1]["date_created"]
    # Rows with the same time that were read already are excluded by their keys.
    seen = [row["id"] for row in page]
    older = {"date_created": {"_lte": last}, "id": {"_nin": seen}}
    more = await column(subject, "text", filter=older, **order)
    assert sorted([*more, *(row["text"] for row in page)]) == ["a", "b", "c"]


@ensureDeferred
async def test_query_returns_rows_in_the_requested_order(subject: Subject) -> None:
    for text, timeout in (("b", 2), ("a", 2), ("c", None), ("d", 1)):
        await command(subject, text, timeout=timeout)
    for sort, expected in (
        (["text"], "abcd"),
        (["-text"], "dcba"),
        (["timeout", "text"], "dabc"),
        (["-timeout", "text"], "cabd"),
        (["-timeout", "-text"], "cbad"),
    ):
        assert "".join(await column(subject, "text", sort=sort)) == expected, sort
    ids = await column(subject, "id")
    assert ids == sorted(ids)


@ensureDeferred
async def test_number_of_rows_in_a_response_is_limited(subject: Subject) -> None:
    rows = [{"imei": IMEI, "text": f"{number:03}"} for number in range(120)]
    await subject.admin.request("POST", "/items/commands", rows)
    assert len(await column(subject, "id")) == 100
    assert len(await column(subject, "id", limit=-1)) == 120
    assert await column(subject, "text", sort=["text"], limit=2) == ["000", "001"]
    assert await column(subject, "text", sort=["text"], limit=2, offset=118) == ["118", "119"]
    assert await column(subject, "text", sort=["text"], limit=-1, offset=118) == ["118", "119"]
    assert await column(subject, "text", limit=0) == []
    failed = await fails(subject.bridge.get_items("commands", limit=-2))
    assert failed == ("DirectusRefused", 400, "INVALID_QUERY")


@ensureDeferred
async def test_long_query_is_accepted(subject: Subject) -> None:
    key = await command(subject)
    keys = [str(uuid4()) for _ in range(200)]
    assert await column(subject, "id", filter={"id": {"_in": [*keys, key]}}) == [key]


@ensureDeferred
async def test_only_readable_fields_are_returned(subject: Subject) -> None:
    await command(subject)
    (row,) = await subject.bridge.get_items("commands")
    assert "user_created" not in row
    assert {"id", "imei", "text", "status", "date_created"} <= row.keys()
    (row,) = await subject.bridge.get_items("commands", fields=["*"])
    assert "user_created" not in row
    (row,) = await subject.admin.get_items("commands")
    assert "user_created" in row
    for query in (
        {"fields": ["user_created"]},
        {"fields": ["nothing"]},
        {"sort": ["nothing"]},
        {"filter": {"nothing": {"_eq": 1}}},
        {"filter": {"user_created": {"_null": True}}},
    ):
        assert await fails(subject.bridge.get_items("commands", **query)) == DENIED, query


@ensureDeferred
async def test_invalid_filter_is_refused(subject: Subject) -> None:
    failed = await fails(subject.bridge.get_items("commands", filter={"status": {"_wrong": 1}}))
    assert failed == ("DirectusRefused", 400, "INVALID_QUERY")
    nothing: dict[str, Any] = {"status": {"_in": []}}
    failed = await fails(subject.bridge.get_items("commands", filter=nothing))
    assert failed == ("DirectusRefused", 400, "INVALID_QUERY")
    await command(subject)
    assert await subject.bridge.update_where("commands", nothing, {"status": "failed"}) == []
    failed = await fails(subject.bridge.get_items("commands", filter={"id": {"_in": ["no-uuid"]}}))
    assert failed == ("DirectusDown", 500, "INTERNAL_SERVER_ERROR")
    nothing = {"status": {"_eq": ""}}
    failed = await fails(subject.bridge.get_items("commands", filter=nothing))
    assert failed == ("DirectusRefused", 400, "INVALID_QUERY")
    request = subject.bridge.request("GET", "/items/commands", params={"filter": "{"})
    assert await fails(request) == ("DirectusRefused", 400, "INVALID_QUERY")


@ensureDeferred
async def test_bridge_writes_status_and_response(subject: Subject) -> None:
    key = await command(subject)
    data = {
        "status": "responded",
        "response": "Ver:03.27 čš\n",
        "instance": "vm-1",
        "finished_at": "2026-11-22T10:00:00Z",
    }
    row = await update_item(subject.bridge, "commands", key, data)
    assert row is not None
    assert row["id"] == key
    assert row["finished_at"] == "2026-11-22T10:00:00.000Z"
    assert (row["status"], row["response"], row["instance"]) == tuple(data.values())[:3]
    assert (await update_item(subject.bridge, "commands", key, {"response": None})) is not None
    assert await column(subject, "response") == [None]
    null = await fails(update_item(subject.bridge, "commands", key, {"status": None}))
    assert null == ("DirectusRefused", 400, "FAILED_VALIDATION")


@ensureDeferred
async def test_bridge_can_change_only_status_and_response_of_a_command(subject: Subject) -> None:
    key = await command(subject)
    for name in ("text", "imei", "codec", "expires_at", "timeout", "user_created", "nothing"):
        both = {"status": "routed", name: None}
        assert await fails(update_item(subject.bridge, "commands", key, both)) == DENIED, name
        request = subject.bridge.update_where("commands", {"id": {"_eq": key}}, both)
        assert await fails(request) == DENIED, name
    assert await column(subject, "status") == ["pending"]
    row = {"imei": IMEI, "text": "getinfo"}
    assert await fails(create(subject.bridge, "commands", row)) == DENIED
    assert await fails(create(subject.bridge, "devices", {"imei": IMEI})) == DENIED
    assert await fails(subject.bridge.request("DELETE", f"/items/commands/{key}")) == DENIED
    assert await fails(subject.bridge.request("GET", "/items/nowhere")) == DENIED


@ensureDeferred
async def test_change_and_read_of_a_missing_row_are_denied(subject: Subject) -> None:
    data = {"status": "routed"}
    for key in (NO_ROW, "no-uuid"):
        assert await fails(update_item(subject.bridge, "commands", key, data)) == DENIED
        assert await fails(subject.bridge.request("GET", f"/items/commands/{key}")) == DENIED


@ensureDeferred
async def test_rows_are_changed_by_a_filter(subject: Subject) -> None:
    keys = sorted([await command(subject, name) for name in ("a", "b", "c")])
    unfinished = {"status": {"_in": ["pending", "routed"]}}
    which = {"id": {"_in": keys[:2]}, **unfinished}
    done = {"status": "failed", "reason": "offline"}
    changed = await subject.bridge.update_where("commands", which, done)
    assert sorted(row["id"] for row in changed) == keys[:2]
    assert await subject.bridge.update_where("commands", which, done) == []
    changed = await subject.bridge.update_where(
        "commands", unfinished, done, fields=["id", "status"]
    )
    assert changed == [{"id": keys[2], "status": "failed"}]
    assert await column(subject, "reason") == ["offline"] * 3


@ensureDeferred
async def test_change_by_filter_is_not_limited_to_100_rows(subject: Subject) -> None:
    rows = [{"imei": IMEI, "text": "getinfo"} for _ in range(120)]
    await subject.admin.request("POST", "/items/commands", rows)
    pending = {"status": {"_eq": "pending"}}
    changed = await subject.bridge.update_where("commands", pending, {"status": "routed"})
    assert len(changed) == 120


@ensureDeferred
async def test_rows_are_changed_together_with_different_values(subject: Subject) -> None:
    one, other = await command(subject), await command(subject)
    changes = [{"id": one, "status": "routed"}, {"id": other, "status": "failed"}]
    changed = await subject.bridge.update_batch("commands", changes, fields=["id", "status"])
    assert sorted(changed, key=str) == sorted(changes, key=str)
    rows = await subject.bridge.get_items("commands", fields=["id", "status"])
    assert sorted(rows, key=str) == sorted(changes, key=str)


@ensureDeferred
async def test_batch_with_a_missing_row_changes_nothing(subject: Subject) -> None:
    key = await command(subject)
    changes = [{"id": key, "status": "routed"}, {"id": NO_ROW, "status": "failed"}]
    assert await fails(subject.bridge.update_batch("commands", changes)) == DENIED
    assert await column(subject, "status") == ["pending"]


@ensureDeferred
async def test_bridge_reads_devices_and_cannot_change_them(subject: Subject) -> None:
    await create(subject.admin, "devices", {"imei": IMEI, "model": "FMB120"})
    await create(subject.admin, "devices", {"imei": IMEI[::-1], "enabled": False})
    names = ["imei", "model", "enabled"]
    assert await subject.bridge.get_items("devices", fields=names, sort=["-imei"]) == [
        {"imei": IMEI, "model": "FMB120", "enabled": True},
        {"imei": IMEI[::-1], "model": None, "enabled": False},
    ]
    request = update_item(subject.bridge, "devices", IMEI, {"enabled": False})
    assert await fails(request) == DENIED


@ensureDeferred
async def test_deleted_row_is_neither_found_nor_changed(subject: Subject) -> None:
    key = await command(subject)
    assert await subject.admin.request("DELETE", f"/items/commands/{key}") is None
    assert await column(subject, "id") == []
    mine = {"id": {"_eq": key}}
    assert await subject.bridge.update_where("commands", mine, {"status": "failed"}) == []


@ensureDeferred
async def test_invalid_token_and_missing_permission_have_different_errors(subject: Subject) -> None:
    unknown = ("DirectusDenied", 401, "INVALID_CREDENTIALS")
    assert await fails(subject.unknown.get_items("commands")) == unknown
    assert await fails(subject.unknown.request("GET", "/users/me")) == unknown
    assert await fails(subject.unknown.update_where("commands", {}, {"status": "x"})) == unknown
    assert await fails(subject.unprivileged.get_items("commands")) == DENIED
    key = await command(subject)
    assert (
        await fails(update_item(subject.unprivileged, "commands", key, {"status": "x"})) == DENIED
    )


@ensureDeferred
async def test_unknown_path_is_refused(subject: Subject) -> None:
    failed = await fails(subject.bridge.request("GET", "/nowhere"))
    assert failed == ("DirectusRefused", 404, "ROUTE_NOT_FOUND")
