"""A double of the few parts of Directus' REST interface that the bridge uses.

It is no less strict than Directus: :mod:`tests.unit.bridge.behaviour` says what both do, and is
run against both.
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
    Complaint,
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
from tracker.bridge.schema import (
    BRIDGE_POLICY,
    BRIDGE_USER,
    COLLECTIONS,
    OPERATOR_POLICY,
    Collection,
    policies,
)

ADMIN_TOKEN: Final = "the-token-of-the-first-administrator"
BRIDGE_TOKEN: Final = "the-token-of-the-bridge"
OPERATOR_TOKEN: Final = "the-token-of-an-operator"
#: Of a user who may do nothing.
NOBODY_TOKEN: Final = "the-token-of-nobody"

ADMIN_USER: Final = "7a1a6a5e-0000-4000-8000-000000000001"
OPERATOR_USER: Final = "7a1a6a5e-0000-4000-8000-000000000002"
NOBODY_USER: Final = "7a1a6a5e-0000-4000-8000-000000000003"

#: Rows that a query without a limit answers.
DEFAULT_LIMIT: Final = 100


@frozen
class Trouble:
    """What a request gets instead of its answer."""

    status: int
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes | None = None
    """What is answered as it is; an error as Directus has them when None."""
    complete: bool = True
    """Whether the answer comes to an end."""


@frozen
class User:
    """Who asks, and what for: collection and action → fields; None: everything."""

    id: str
    rights: Mapping[tuple[str, str], Sequence[str]] | None


@define
class Table:
    """A collection and its rows."""

    collection: Collection
    rows: dict[str, Row] = field(factory=dict)
    most: int | None = None
    """Rows that are looked at or answered at once (``QUERY_LIMIT_MAX``); None: any number."""
    poisoned: dict[str, Callable[[Row], Complaint | None]] = field(factory=dict)
    """Key → why the row does not take what it is told; None when it does."""

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """Name → field."""
        return {one["field"]: one for one in self.collection.fields}

    @property
    def key(self) -> str:
        """The name of the primary key."""
        return next(
            name for name, one in self.columns.items() if one["schema"].get("is_primary_key")
        )


class DirectusDouble(Resource):
    """The double, to be served by a :class:`twisted.web.server.Site`, or asked in memory.

    :param now: tells the time, in seconds since 1970.
    """

    isLeaf = True

    def __init__(self, now: Callable[[], float] = lambda: 1_795_000_000.0) -> None:
        super().__init__()
        self.tables = {one.name: Table(one) for one in COLLECTIONS}
        self.users = _users()
        """Token → user; take one out, and it is revoked."""
        self.asked: list[tuple[str, str, Any]] = []
        """Method, path and body of each request."""
        self.troubles: list[Trouble | None] = []
        """What the requests to come get, one each; None: their answer."""
        self.created: Callable[[str, str], None] = lambda collection, key: None
        """Called when a row was created, as a Flow is."""
        self.answered: Callable[[int], None] = lambda number: None
        """Called after each answer, with the number of requests up to then."""
        self.silent = False
        """Whether requests get no answer, until :meth:`speak`."""
        self._now = now
        self._waiting: list[tuple[Request, Callable[[], None]]] = []

    def rows(self, collection: str) -> dict[str, Row]:
        """Key → row, as they are stored; they may be changed."""
        return self.tables[collection].rows

    def speak(self) -> None:
        """Answer what was asked in silence, and what will be."""
        self.silent = False
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            answer()

    def render(self, request: Request) -> Any:
        """Answer, now or later."""
        content = request.content.read() if request.content else b""
        if self.silent:
            self._waiting.append((request, lambda: self._answer(request, content)))
            request.notifyFinish().addErrback(lambda _: self._forget(request))
        else:
            self._answer(request, content)
        return NOT_DONE_YET

    @property
    def waiting(self) -> int:
        """How many requests still wait for an answer."""
        return len(self._waiting)

    @property
    def unanswered(self) -> list[Request]:
        """Those."""
        return [request for request, _ in self._waiting]

    def _forget(self, request: Request) -> None:
        self._waiting = [one for one in self._waiting if one[0] is not request]

    def _answer(self, request: Request, content: bytes) -> None:
        method, path = request.method.decode(), request.path.decode()
        body = json.loads(content) if content else None
        self.asked.append((method, path, body))
        request.setHeader("Content-Type", "application/json; charset=utf-8")
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None:
            self._trouble(request, trouble)
            return
        try:
            query = {name.decode(): values[-1].decode() for name, values in request.args.items()}
            status, answer = self._do(self._user(request), method, path, query, body)
        except Complaint as complaint:
            status, answer = complaint.status, error(complaint.code, str(complaint))
        request.setResponseCode(status)
        if answer is not None:
            request.write(json.dumps(answer).encode())
        self.answered(len(self.asked))
        request.finish()

    def _trouble(self, request: Request, trouble: Trouble) -> None:
        request.setResponseCode(trouble.status)
        for name, value in trouble.headers.items():
            request.setHeader(name, value)
        body = trouble.body
        if body is None:
            body = json.dumps(error(trouble.code, trouble.message)).encode()
        request.write(body)
        if trouble.complete:
            request.finish()

    def _user(self, request: Request) -> User | None:
        header = request.getHeader("Authorization")
        if header is None:
            return None
        user = self.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise Complaint(401, "INVALID_CREDENTIALS", "Invalid user credentials.")
        return user

    def _do(
        self, user: User | None, method: str, path: str, query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if path == "/server/ping":
            return 200, "pong"
        if path == "/users/me" and method == "GET":
            if user is None:
                raise Complaint(401, "INVALID_CREDENTIALS", "Invalid user credentials.")
            return 200, {"data": {"id": user.id}}
        if parts[0] != "items" or len(parts) not in (2, 3):
            raise Complaint(404, "ROUTE_NOT_FOUND", f"Route {path} doesn't exist.")
        table = self.tables.get(parts[1])
        if table is None:
            raise no_collection(parts[1])
        asking = _Asking(table, user, self._stamp())
        if len(parts) == 3:
            return self._one(asking, method, parts[2], query, body)
        return self._many(asking, method, query, body)

    def _one(
        self, asking: _Asking, method: str, key: str, query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        if method == "PATCH":
            asking.change({key: body})
        elif method == "DELETE":
            asking.remove([key])
            return 204, None
        elif method != "GET":
            raise Complaint(404, "ROUTE_NOT_FOUND", "Route doesn't exist.")
        return asking.shown([key], query, alone=True)

    def _many(
        self, asking: _Asking, method: str, query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        table = asking.table
        if method == "GET":
            return 200, {"data": asking.read(parsed(query))}
        if method == "SEARCH":
            return 200, {"data": asking.read(body["query"])}
        if method == "POST":
            made = [asking.create(one) for one in (body if isinstance(body, list) else [body])]
            for key in made:
                self.created(table.collection.name, key)
            return asking.shown(made, query, alone=not isinstance(body, list))
        if method == "PATCH":
            if isinstance(body, list):
                changes = {one[table.key]: one for one in body}
            elif "keys" in body:
                changes = dict.fromkeys(body["keys"], body["data"])
            else:
                # Rows are looked for without regard to what the user may see.
                found = _Asking(table, User("", None), "").read(
                    {**body["query"], "fields": [table.key]}, lenient=True
                )
                changes = {row[table.key]: body["data"] for row in found}
            asking.change(changes)
            return asking.shown(sorted(changes), query, alone=False)
        raise Complaint(404, "ROUTE_NOT_FOUND", "Route doesn't exist.")

    def _stamp(self) -> str:
        now = datetime.fromtimestamp(self._now(), UTC)
        return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z"


@frozen
class _Asking:
    """What one user does with one table."""

    table: Table
    user: User | None
    stamp: str
    """Of now."""

    def fields(self, action: str) -> set[str]:
        """Those that the user may use so."""
        rights = self.user.rights if self.user is not None else {}
        if rights is None:
            return set(self.table.columns)
        name = self.table.collection.name
        allowed = rights.get((name, action))
        if allowed is None:
            raise no_collection(name)
        return set(self.table.columns) if "*" in allowed else set(allowed)

    def check(self, action: str, names: Iterable[str]) -> None:
        """That the user may use these fields so."""
        allowed = self.fields(action)
        for name in names:
            if name not in allowed:
                raise Complaint(
                    *(403, "FORBIDDEN"),
                    f'You don\'t have permission to access field "{name}" in collection '
                    f'"{self.table.collection.name}" or it does not exist. Queried in root.',
                )

    def read(self, query: Mapping[str, Any], lenient: bool = False) -> list[Row]:
        """Rows, as the query wants them.

        :param lenient: whether values are taken that make no sense, as in changes by a filter.
        """
        self.check("read", [])
        if not lenient:
            check_filter(query.get("filter") or {})
        fields = [name for name in query.get("fields", ["*"]) if name != "*"]
        sort = query.get("sort", [])
        self.check("read", fields)
        self.check("read", [name.removeprefix("-") for name in sort])
        limit, offset = int(query.get("limit", DEFAULT_LIMIT)), int(query.get("offset", 0))
        most = self.table.most
        if most is not None and limit > most and not lenient:
            raise Complaint(
                *(400, "INVALID_QUERY"),
                f'Invalid query. "limit" must be less than or equal to {most}.',
            )
        if most is not None and limit == -1:
            limit = most
        if limit < -1:
            raise Complaint(
                *(400, "INVALID_QUERY"),
                'Invalid query. "limit" must be greater than or equal to -1.',
            )
        accepts = self._filter(query.get("filter") or {})
        rows = sorted(
            filter(accepts, self.table.rows.values()), key=lambda row: row[self.table.key]
        )
        for name in reversed(sort):
            rows.sort(key=order(name.removeprefix("-")), reverse=name.startswith("-"))
        names = sorted(self.fields("read")) if "*" in query.get("fields", ["*"]) else fields
        end = None if limit < 0 else offset + limit
        return [{name: row[name] for name in names} for row in rows[offset:end]]

    def shown(self, keys: Sequence[str], query: Mapping[str, str], alone: bool) -> tuple[int, Any]:
        """Status and answer: what the user may see of these rows; nothing is no error."""
        for key in keys:
            self._check_key(key)
        ours = {self.table.key: {"_in": list(keys)}}
        try:
            rows = self.read({**parsed(query), "filter": ours, "limit": -1}, lenient=True)
        except Complaint as error:
            if alone and not self.table.rows.keys() >= set(keys):
                raise
            if error.status == 403:
                return 204, None
            raise
        if alone and not rows:
            raise no_item()
        return 200, {"data": rows[0] if alone else rows}

    def create(self, data: Row) -> str:
        """Add a row.

        :return: its key.
        """
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
            raise Complaint(
                *(400, "RECORD_NOT_UNIQUE"),
                f'Value "{key}" for field "{table.key}" in collection '
                f'"{table.collection.name}" has to be unique.',
            )
        table.rows[key] = row
        return key

    def change(self, changes: Mapping[str, Row]) -> None:
        """Change rows by key: all, or none."""
        table = self.table
        for key, data in changes.items():
            self._check_key(key)
            self.check("update", [name for name in data if name != table.key])
            if key not in table.rows:
                names = ", ".join(f'"{name}"' for name in data if name != table.key)
                raise Complaint(
                    *(403, "FORBIDDEN"),
                    f'You don\'t have permissions to perform "update" for the field(s) {names} in '
                    f'collection "{table.collection.name}" or it does not exist.',
                )
            self._check_values(data)
            for name, column in table.columns.items():
                never = column["schema"].get("is_nullable") is False
                if never and name in data and data[name] is None:
                    raise invalid(name, "can't be null")
            if key in table.poisoned and (poison := table.poisoned[key](data)):
                raise poison
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
                raise Complaint(
                    *(400, "VALUE_TOO_LONG"),
                    f'Value "{value}" for field "{name}" in collection '
                    f'"{self.table.collection.name}" is too long.',
                )
            if column["type"] == "uuid" and not is_uuid(value):
                raise no_item()
            if "\0" in str(value) or not is_of(column["type"], value):
                raise Complaint(500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred.")

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
                    raise Complaint(
                        *(400, "INVALID_QUERY"),
                        f'Invalid query. "{kind}" field type does not contain the "{operator}" '
                        "filter operator.",
                    )
                if kind == "uuid" and operator == "_in" and not all(map(is_uuid, value)):
                    raise Complaint(500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred.")
                conditions.append(condition(name, operator, value, kind))
        return lambda row: all(one(row) for one in conditions)


def _users() -> dict[str, User]:
    rights = {
        one.id: {(each["collection"], each["action"]): each["fields"] for each in one.permissions}
        for one in policies(with_positions=False)
    }
    return {
        ADMIN_TOKEN: User(ADMIN_USER, None),
        BRIDGE_TOKEN: User(BRIDGE_USER, rights[BRIDGE_POLICY]),
        OPERATOR_TOKEN: User(OPERATOR_USER, rights[OPERATOR_POLICY]),
        NOBODY_TOKEN: User(NOBODY_USER, {}),
    }
