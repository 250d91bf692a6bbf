"""The business plane: a real Directus, or its double."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.web.server import Site

from tests.directus.prepared import add_user, point_flows_at, prepare
from tests.directus.server import LOCAL_ALLOWED, DirectusServer, ask
from tests.proxy import Proxy
from tests.unit.bridge.double import BRIDGE_TOKEN, OPERATOR_TOKEN, DirectusDouble
from tracker.bridge.schema import OPERATOR_POLICY, SECRET_HEADER

SECRET: Final = "known-to-both-sides"


class Plane:
    """The interface of both: operators write to it, and the bridge reads it.

    :param port: where it listens.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.token_file = folder / "bridge-token"
        self.secret_file = folder / "webhook-secret"
        self.door: Proxy | None = None
        """The way that operators take to it."""

    def ask(self, method: str, path: str, body: Any = None, timeout: float = 5) -> tuple[int, Any]:
        """Send a request as an operator does, through the operators' proxy.

        :raises OSError: when there is no answer.
        """
        assert self.door is not None
        url = f"http://127.0.0.1:{self.door.port}"
        return ask(url, method, path, body, OPERATOR_TOKEN, timeout)

    def rows(self) -> dict[str, dict[str, Any]]:
        """All commands: row id → row."""
        status, answer = self.ask("GET", "/items/commands?limit=-1", timeout=60)
        assert status == 200, answer
        return {row["id"]: row for row in answer["data"]}


class Real(Plane):
    """A real Directus with a database server of its own."""

    def __init__(self, folder: Path, link: Callable[[str, int], Proxy]) -> None:
        """:param link: makes a proxy by a name, to a port."""
        self.server = DirectusServer(
            folder / "directus", IMPORT_IP_DENY_LIST=LOCAL_ALLOWED, LOG_LEVEL="warn"
        )
        database = link("directus-postgres", self.server.postgres.port)
        self.server.variables["DB_PORT"] = str(database.port)
        super().__init__(folder, self.server.port)
        self._folder = folder

    def start(self, webhook: Proxy) -> None:
        """Start it, and set it up as an operator does; its Flows post to the webhook."""
        self.server.start()
        prepared = prepare(self.server, self._folder)
        add_user(self.server, OPERATOR_TOKEN, OPERATOR_POLICY)
        point_flows_at(prepared, webhook.port)
        self.token_file, self.secret_file = prepared.bridge_token_file, prepared.secret_file

    def close(self) -> None:
        """Kill it, and remove its data."""
        self.server.remove()


class Double(Plane):
    """The double, served by this process, which posts to the webhook as Flows do."""

    def __init__(self, folder: Path, reacting: Any, webhook: Callable[[], Proxy]) -> None:
        double = DirectusDouble(time.time)
        double.created = self._created
        self._webhook = webhook
        self._posts: set[asyncio.Task[None]] = set()

        async def listen() -> Any:
            return reacting.reactor.listenTCP(0, Site(double), interface="127.0.0.1")

        self._listening = reacting.call(listen())
        super().__init__(folder, self._listening.getHost().port)
        self.token_file.write_text(BRIDGE_TOKEN)
        self.secret_file.write_text(SECRET)
        self._reacting = reacting

    def _created(self, collection: str, key: str) -> None:
        if collection == "commands":
            task = asyncio.get_running_loop().create_task(self._post(key))
            self._posts.add(task)
            task.add_done_callback(self._posts.discard)

    async def _post(self, key: str) -> None:
        body = json.dumps({"key": key}).encode()
        head = (
            "POST /commands HTTP/1.1\r\nHost: bridge\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\n{SECRET_HEADER}: {SECRET}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._webhook().port)
                try:
                    writer.write(head.encode() + body)
                    await reader.read(1000)
                finally:
                    writer.transport.abort()

    def close(self) -> None:
        """Stop listening."""

        async def close() -> None:
            self._listening.stopListening()

        self._reacting.call(close())
