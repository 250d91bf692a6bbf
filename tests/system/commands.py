"""Write commands to Redis and read their responses, as any client can."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.servers import RedisServer

RESPONSES = "commands:responses"
FINAL = {"responded", "rejected", "failed", "expired"}


def fields(
    command_id: str,
    device_id: str,
    text: str = "getinfo",
    *,
    codec: str = "12",
    expires_in: float = 60.0,
    timeout: float = 10.0,
) -> dict[str, str]:
    """Return the fields of a command."""
    expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
    return {
        "command_id": command_id,
        "device_id": device_id,
        "payload": text,
        "codec": codec,
        "expires_at": expires_at.isoformat().replace("+00:00", "Z"),
        "timeout": str(timeout),
    }


def send(redis: RedisServer, instance_id: str, *command: Any, **options: Any) -> None:
    """Append a command to the stream of an instance."""
    redis.client.xadd(f"commands:outbound:{instance_id}", fields(*command, **options))


class Responses:
    """Responses to commands, read incrementally."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self._after = "-"
        self._found: dict[str, list[dict[str, str]]] = defaultdict(list)

    def read(self) -> dict[str, list[dict[str, str]]]:
        """Return command ID → its responses in their order."""
        for entry_id, content in self._redis.client.xrange(RESPONSES, self._after):
            response = {name.decode(): value.decode() for name, value in content.items()}
            self._found[response["command_id"]].append(response)
            self._after = f"({entry_id.decode()}"
        return self._found

    def ended(self) -> int:
        """Return the number of commands with a final response."""
        return sum(given[-1]["status"] in FINAL for given in self.read().values())


def responses(redis: RedisServer) -> dict[str, list[dict[str, str]]]:
    """Return command ID → its responses in their order."""
    return Responses(redis).read()


def statuses(redis: RedisServer) -> dict[str, str]:
    """Return command ID → its final status (and reason); assert that it has at most one."""
    result = {}
    for command_id, given in responses(redis).items():
        final = [response for response in given if response["status"] in FINAL]
        assert len(final) <= 1, given
        assert all(response["status"] == "delivered" for response in given[: -len(final) or None])
        if final:
            assert given[-1] is final[0], given
            (one,) = final
            result[command_id] = one["status"] + (f"/{one['reason']}" if one["reason"] else "")
    return result


def device_registry(redis: RedisServer) -> dict[str, str]:
    """Return device ID → instance ID."""
    found: dict[bytes, bytes] = redis.client.hgetall("connections:registry")
    return {device.decode(): owner.decode() for device, owner in found.items()}
