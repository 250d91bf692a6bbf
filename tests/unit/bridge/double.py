"""A double of those parts of Directus' REST interface that the bridge uses.

The tests in :mod:`tests.unit.bridge.behaviour` run with the double and with a real Directus, and
show that the double is as strict as Directus.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from attrs import define, field, frozen
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tests.unit.bridge.queries import (
    RequestError,
    Row,
    check_filter,
    combined,
    condition,
    error,
    invalid,
    is_of,
    is_uuid,
    moment,
    no_collection,
    no_item,
    operators,
    order,
    parsed,
)
from tracker.bridge.choices import collections
from tracker.bridge.schema import (
    BRIDGE_POLICY,
    BRIDGE_USER,
    OPERATOR_POLICY,
    Collection,
    policies,
)

ADMIN_TOKEN: Final = "the-token-of-the-first-administrator"
BRIDGE_TOKEN: Final = "the-token-of-the-bridge"
OPERATOR_TOKEN: Final = "the-token-of-an-operator"
#: The token of a user without permissions.
UNPRIVILEGED_TOKEN: Final = "the-token-of-an-unprivileged-user"

ADMIN_USER: Final = "7a1a6a5e-0000-4000-8000-000000000001"
OPERATOR_USER: Final = "7a1a6a5e-0000-4000-8000-000000000002"
UNPRIVILEGED_USER: Final = "7a1a6a5e-0000-4000-8000-000000000003"

#: Maximum number of rows in the response to a query without a limit.
DEFAULT_LIMIT: Final = 100


@frozen
class CannedResponse:
    """A prepared response to a request, which is then not executed."""

    status: int
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes | None = None
    """The body; None: an error in the form of Directus, with code and message."""
    complete: bool = True
    """False if the response never ends."""


@frozen
class User:
    """A user with permissions."""

    id: str
    permissions: Mapping[tuple[str, str], Sequence[str]] | None
    """Collection and action → fields; None: all."""


@define
class Table:
    """A collection and its rows."""

    collection: Collection
    rows: dict[str, Row] = field(factory=dict)
    max_rows: int | None = None
    """Maximum number of rows in a request (``QUERY_LIMIT_MAX``); None: unlimited."""
    rejections: dict[str, Callable[[Row], RequestError | None]] = field(factory=dict)
    """Key → function that returns the error of a change of this row, or None."""
    null_is_least: bool = False
    """NULL sorts before all values, as in MySQL and SQLite; else after them, as in PostgreSQL."""
    unreadable: set[str] = field(factory=set)
    """Keys of rows with a value that causes an internal error (500) when it is read."""

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The fields by name."""
        return {one["field"]: one for one in self.collection.fields}

    @property
    def key(self) -> str:
        """The name of the primary key."""
        return next(
            name for name, one in self.columns.items() if one["schema"].get("is_primary_key")
        )


class DirectusDouble(Resource):
    """The double; serve it with a :class:`twisted.web.server.Site`, or use it in memory.

    :param now: returns the time, in seconds since 1970.
    """

    isLeaf = True

    def __init__(self, now: Callable[[], float] = lambda: 1_795_000_000.0) -> None:
        super().__init__()
        self.tables = {one.name: Table(one) for one in collections()}
        self.users = _users()
        """Token → user; a removed token is revoked."""
        self.requests: list[tuple[str, str, Any]] = []
        """Method, path and body of each request."""
        self.canned: list[CannedResponse | None] = []
        """Responses to the next requests, in order; None: the request is executed."""
        self.created: Callable[[str, str], None] = lambda collection, key: None
        """Called with collection and key when a row was created, like a Flow."""
        self.answered: Callable[[int], None] = lambda number: None
        """Called after each response, with the number of requests so far."""
        self.silent = False
        """True if requests get no response until :meth:`resume`."""
        self._now = now
        self._waiting: list[tuple[Request, Callable[[], None]]] = []

    def rows(self, collection: str) -> dict[str, Row]:
        """Return the stored rows by key; tests may change them."""
        return self.tables[collection].rows

    def resume(self) -> None:
        """Respond to all waiting requests, and to later ones at once."""
        self.silent = False
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            answer()

    def render(self, request: Request) -> Any:
        """Respond now, or after :meth:`resume`."""
        content = request.content.read() if request.content else b""
        if self.silent:
            self._waiting.append((request, lambda: self._answer(request, content)))
            request.notifyFinish().addErrback(lambda _: self._forget(request))
        else:
            self._answer(request, content)
        return NOT_DONE_YET

    @property
    def waiting(self) -> int:
        """Number of requests without a response."""
        return len(self._waiting)

    @property
    def unanswered(self) -> list[Request]:
        """The requests without a response."""
        return [request for request, _ in self._waiting]

    def _forget(self, request: Request) -> None:
        self._waiting = [one for one in self._waiting if one[0] is not request]

    def _answer(self, request: Request, content: bytes) -> None:
        method, path = request.method.decode(), request.path.decode()
        body = json.loads(content) if content else None
        self.requests.append((method, path, body))
        request.setHeader("Content-Type", "application/json; charset=utf-8")
        canned = self.canned.pop(0) if self.canned else None
        if canned is not None:
            self._send_canned(request, canned)
            return
        try:
            query = {name.decode(): values[-1].decode() for name, values in request.args.items()}
            status, answer = self._do(self._user(request), method, path, query, body)
        except RequestError as complaint:
            status, answer = complaint.status, error(complaint.code, str(complaint))
        request.setResponseCode(status)
        if answer is not None:
            request.write(json.dumps(answer).encode())
        self.answered(len(self.requests))
        request.finish()

    def _send_canned(self, request: Request, canned: CannedResponse) -> None:
        request.setResponseCode(canned.status)
        for name, value in canned.headers.items():
            request.setHeader(name, value)
        body = canned.body
        if body is None:
            body = json.dumps(error(canned.code, canned.message)).encode()
        request.write(body)
        if canned.complete:
            request.finish()

    def _user(self, request: Request) -> User | None:
        header = request.getHeader("Authorization")
        if header is None:
            return None
        user = self.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise RequestError(401, "INVALID_CREDENTIALS", "Invalid user credentials.")
        return user

    def _do(
        self, user: User | None, method: str, path: str, query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if path == "/server/ping":
            return 200, "pong"
        if path == "/users/me" and method == "GET":
            if user is None:
                raise RequestError(401, "INVALID_CREDENTIALS", "Invalid user credentials.")
            return 200, {"data": {"id": user.id}}
        if parts[0] != "items" or len(parts) not in (2, 3):
            raise RequestError(404, "ROUTE_NOT_FOUND", f"Route {path} doesn't exist.")
        table = self.tables.get(parts[1])
        if table is None:
            raise no_collection(parts[1])
        access = _Access(table, user, self._stamp())
        if len(parts) == 3:
            return self._one(access, method, parts[2], query, body)
        return self._many(access, method, query, body)

    def _one(
        self, access: _Access, method: str, key: str, query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        if method == "PATCH":
            access.change({key: body})
        elif method == "DELETE":
            access.remove([key])
            return 204, None
        elif method != "GET":
            raise RequestError(404, "ROUTE_NOT_FOUND", "Route doesn't exist.")
        return access.shown([key], query, alone=True)

    def _many(
        self, access: _Access, method: str, query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        table = access.table
        if method == "GET":
            return 200, {"data": access.read(parsed(query))}
        if method == "SEARCH":
            return 200, {"data": access.read(body["query"])}
        if method == "POST":
            made = [access.create(one) for one in (body if isinstance(body, list) else [body])]
            for key in made:
                self.created(table.collection.name, key)
            return access.shown(made, query, alone=not isinstance(body, list))
        if method == "PATCH":
            if isinstance(body, list):
                changes = {one[table.key]: one for one in body}
            elif "keys" in body:
                changes = dict.fromkeys(body["keys"], body["data"])
            else:
                # Directus finds the rows without regard to read permissions.
                found = _Access(table, User("", None), "").read(
                    {**body["query"], "fields": [table.key]}, lenient=True
                )
                changes = {row[table.key]: body["data"] for row in found}
            access.change(changes)
            return access.shown(sorted(changes), query, alone=False)
        raise RequestError(404, "ROUTE_NOT_FOUND", "Route doesn't exist.")

    def _stamp(self) -> str:
        now = datetime.fromtimestamp(self._now(), UTC)
        return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z"


@frozen
class _Access:
    """Access of one user to one table, with the checks of Directus."""

    table: Table
    user: User | None
    stamp: str
    """The present time."""

    def fields(self, action: str) -> set[str]:
        """Return the fields that the user may use in an action."""
        permissions = self.user.permissions if self.user is not None else {}
        if permissions is None:
            return set(self.table.columns)
        name = self.table.collection.name
        allowed = permissions.get((name, action))
        if allowed is None:
            raise no_collection(name)
        return set(self.table.columns) if "*" in allowed else set(allowed)

    def check(self, action: str, names: Iterable[str]) -> None:
        """Raise RequestError unless the user may use these fields in an action."""
        allowed = self.fields(action)
        for name in names:
            if name not in allowed:
                raise RequestError(
                    *(403, "FORBIDDEN"),
                    f'You don\'t have permission to access field "{name}" in collection '
                    f'"{self.table.collection.name}" or it does not exist. Queried in root.',
                )

    def read(self, query: Mapping[str, Any], lenient: bool = False) -> list[Row]:
        """Return the rows of a query.

        :param lenient: True to accept invalid values in filters, as in changes by a filter.
        """
        self.check("read", [])
        if not lenient:
            check_filter(query.get("filter") or {})
        fields = [name for name in query.get("fields", ["*"]) if name != "*"]
        sort = query.get("sort", [])
        self.check("read", fields)
        self.check("read", [name.removeprefix("-") for name in sort])
        limit, offset = int(query.get("limit", DEFAULT_LIMIT)), int(query.get("offset", 0))
        max_rows = self.table.max_rows
        if max_rows is not None and limit > max_rows and not lenient:
            raise RequestError(
                *(400, "INVALID_QUERY"),
                f'Invalid query. "limit" must be less than or equal to {max_rows}.',
            )
        if max_rows is not None and limit == -1:
            limit = max_rows
        if limit < -1:
            raise RequestError(
                *(400, "INVALID_QUERY"),
                'Invalid query. "limit" must be greater than or equal to -1.',
            )
        accepts = self._filter(query.get("filter") or {})
        rows = sorted(
            filter(accepts, self.table.rows.values()), key=lambda row: row[self.table.key]
        )
        for name in reversed(sort):
            key = order(name.removeprefix("-"), self.table.null_is_least)
            rows.sort(key=key, reverse=name.startswith("-"))
        names = sorted(self.fields("read")) if "*" in query.get("fields", ["*"]) else fields
        end = None if limit < 0 else offset + limit
        found = {row[self.table.key] for row in rows[offset:end]}
        if "text" in names and found & self.table.unreadable:
            raise RequestError(500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred.")
        return [{name: row[name] for name in names} for row in rows[offset:end]]

    def shown(self, keys: Sequence[str], query: Mapping[str, str], alone: bool) -> tuple[int, Any]:
        """Return HTTP status and body: the fields of these rows that the user may read."""
        for key in keys:
            self._check_key(key)
        ours = {self.table.key: {"_in": list(keys)}}
        try:
            rows = self.read({**parsed(query), "filter": ours, "limit": -1}, lenient=True)
        except RequestError as error:
            if alone and not self.table.rows.keys() >= set(keys):
                raise
            if error.status == 403:
                return 204, None
            raise
        if alone and not rows:
            raise no_item()
        return 200, {"data": rows[0] if alone else rows}

    def create(self, data: Row) -> str:
        """Add a row, and return its key."""
        table = self.table
        self.check("create", data)
        for name, column in table.columns.items():
            wanted = column["meta"].get("required") or (
                column["schema"].get("is_nullable") is False
                and "default_value" not in column["schema"]
            )
            if wanted and data.get(name) is None and not column["meta"].get("special"):
                kind = "required" if name not in data else "null"
                raise invalid(name, "is required" if kind == "required" else "can't be null")
        self._check_values(data)
        row = {name: one["schema"].get("default_value") for name, one in table.columns.items()}
        row |= self._stored(data)
        for name, column in table.columns.items():
            special = column["meta"].get("special") or ()
            if "uuid" in special and row[name] is None:
                row[name] = str(uuid4())
            elif "date-created" in special:
                row[name] = self.stamp
            elif "user-created" in special:
                row[name] = self.user.id if self.user else None
        key: str = row[table.key]
        if key in table.rows:
            raise RequestError(
                *(400, "RECORD_NOT_UNIQUE"),
                f'Value "{key}" for field "{table.key}" in collection '
                f'"{table.collection.name}" has to be unique.',
            )
        table.rows[key] = row
        return key

    def change(self, changes: Mapping[str, Row]) -> None:
        """Change rows by key, either all or none."""
        table = self.table
        for key, data in changes.items():
            self._check_key(key)
            self.check("update", [name for name in data if name != table.key])
            if key not in table.rows:
                names = ", ".join(f'"{name}"' for name in data if name != table.key)
                raise RequestError(
                    *(403, "FORBIDDEN"),
                    f'You don\'t have permissions to perform "update" for the field(s) {names} in '
                    f'collection "{table.collection.name}" or it does not exist.',
                )
            self._check_values(data)
            for name, column in table.columns.items():
                never = column["schema"].get("is_nullable") is False
                if never and name in data and data[name] is None:
                    raise invalid(name, "can't be null")
            if key in table.rejections and (rejection := table.rejections[key](data)):
                raise rejection
        for key, data in changes.items():
            table.rows[key] |= self._stored(data)
            for name, column in table.columns.items():
                if "date-updated" in (column["meta"].get("special") or ()):
                    table.rows[key][name] = self.stamp

    def remove(self, keys: Sequence[str]) -> None:
        """Delete rows."""
        self.fields("delete")
        for key in keys:
            self._check_key(key)
            if self.table.rows.pop(key, None) is None:
                raise no_item()

    def _check_key(self, key: str) -> None:
        if self.table.columns[self.table.key]["type"] == "uuid" and not is_uuid(key):
            raise no_item()

    def _check_values(self, data: Row) -> None:
        for name, value in data.items():
            column = self.table.columns[name]
            rule = column["meta"].get("validation")
            if rule and value is not None:
                (one,) = rule["_and"]
                if not re.search(one[name]["_regex"], str(value)):
                    raise invalid(name, "doesn't have the correct format")
            if value is None:
                continue
            longest = column["schema"].get("max_length")
            if longest is not None and len(str(value)) > longest:
                raise RequestError(
                    *(400, "VALUE_TOO_LONG"),
                    f'Value "{value}" for field "{name}" in collection '
                    f'"{self.table.collection.name}" is too long.',
                )
            if column["type"] == "uuid" and not is_uuid(value):
                raise no_item()
            if "\0" in str(value) or not is_of(column["type"], value):
                raise RequestError(500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred.")

    def _stored(self, data: Row) -> Row:
        columns = self.table.columns
        return {
            name: moment(value) if columns[name]["type"] == "timestamp" and value else value
            for name, value in data.items()
        }

    def _filter(self, wanted: Mapping[str, Any]) -> Callable[[Row], bool]:
        conditions: list[Callable[[Row], bool]] = []
        for name, what in wanted.items():
            if name in ("_and", "_or"):
                parts = [self._filter(one) for one in what]
                conditions.append(combined(all if name == "_and" else any, parts))
                continue
            self.check("read", [name])
            kind = self.table.columns[name]["type"]
            for operator, value in what.items():
                if operator not in operators(kind):
                    raise RequestError(
                        *(400, "INVALID_QUERY"),
                        f'Invalid query. "{kind}" field type does not contain the "{operator}" '
                        "filter operator.",
                    )
                if kind == "uuid" and operator == "_in" and not all(map(is_uuid, value)):
                    raise RequestError(
                        500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred."
                    )
                conditions.append(condition(name, operator, value, kind))
        return lambda row: all(one(row) for one in conditions)


def _users() -> dict[str, User]:
    permissions = {
        one.id: {(each["collection"], each["action"]): each["fields"] for each in one.permissions}
        for one in policies(with_positions=False)
    }
    return {
        ADMIN_TOKEN: User(ADMIN_USER, None),
        BRIDGE_TOKEN: User(BRIDGE_USER, permissions[BRIDGE_POLICY]),
        OPERATOR_TOKEN: User(OPERATOR_USER, permissions[OPERATOR_POLICY]),
        UNPRIVILEGED_TOKEN: User(UNPRIVILEGED_USER, {}),
    }
