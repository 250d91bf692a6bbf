"""The business plane: a real Directus or its double."""

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
    """Interface of the business plane: operators write to it, and the bridge reads it.

    :param port: port of Directus.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.token_file = folder / "bridge-token"
        self.secret_file = folder / "webhook-secret"
        self.proxy: Proxy | None = None
        """Proxy between operators and Directus."""

    def ask(self, method: str, path: str, body: Any = None, timeout: float = 5) -> tuple[int, Any]:
        """Send a request as an operator, through the operators' proxy.

        :raises OSError: if no response arrives.
        """
        assert self.proxy is not None
        url = f"http://127.0.0.1:{self.proxy.port}"
        return ask(url, method, path, body, OPERATOR_TOKEN, timeout)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return all commands: row id → row."""
        status, response = self.ask("GET", "/items/commands?limit=-1", timeout=60)
        assert status == 200, response
        return {row["id"]: row for row in response["data"]}


class RealDirectus(Plane):
    """A real Directus with its own database server."""

    def __init__(self, folder: Path, link: Callable[[str, int], Proxy]) -> None:
        """:param link: makes a proxy with a name to a port."""
        self.server = DirectusServer(
            folder / "directus", IMPORT_IP_DENY_LIST=LOCAL_ALLOWED, LOG_LEVEL="warn"
        )
        database = link("directus-postgres", self.server.postgres.port)
        self.server.variables["DB_PORT"] = str(database.port)
        super().__init__(folder, self.server.port)
        self._folder = folder

    def start(self, webhook: Proxy) -> None:
        """Start Directus, and set it up for the bridge, with Flows that post to the webhook."""
        self.server.start()
        prepared = prepare(self.server, self._folder)
        add_user(self.server, OPERATOR_TOKEN, OPERATOR_POLICY)
        point_flows_at(prepared, webhook.port)
        self.token_file, self.secret_file = prepared.bridge_token_file, prepared.secret_file

    def close(self) -> None:
        """Kill Directus, and remove its data."""
        self.server.remove()


class DirectusInProcess(Plane):
    """The double in this process; it posts to the webhook like Flows."""

    def __init__(self, folder: Path, reactor_thread: Any, webhook: Callable[[], Proxy]) -> None:
        double = DirectusDouble(time.time)
        double.created = self._created
        self._webhook = webhook
        self._posts: set[asyncio.Task[None]] = set()

        async def listen() -> Any:
            return reactor_thread.reactor.listenTCP(0, Site(double), interface="127.0.0.1")

        self._listening = reactor_thread.call(listen())
        super().__init__(folder, self._listening.getHost().port)
        self.token_file.write_text(BRIDGE_TOKEN)
        self.secret_file.write_text(SECRET)
        self._reactor_thread = reactor_thread

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

        self._reactor_thread.call(close())
