"""Commands in Redis, as the bridge and people write and read them."""

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
    """The fields of a command."""
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
    """Put a command into the stream of an instance."""
    redis.client.xadd(f"commands:outbound:{instance_id}", fields(*command, **options))


class Responses:
    """What has been said of commands, read as it comes."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self._after = "-"
        self._found: dict[str, list[dict[str, str]]] = defaultdict(list)

    def read(self) -> dict[str, list[dict[str, str]]]:
        """Command id → its responses in their order."""
        for entry_id, content in self._redis.client.xrange(RESPONSES, self._after):
            response = {name.decode(): value.decode() for name, value in content.items()}
            self._found[response["command_id"]].append(response)
            self._after = f"({entry_id.decode()}"
        return self._found

    def ended(self) -> int:
        """How many have a final response."""
        return sum(answers[-1]["status"] in FINAL for answers in self.read().values())


def responses(redis: RedisServer) -> dict[str, list[dict[str, str]]]:
    """All that was said so far: command id → its responses in their order."""
    return Responses(redis).read()


def statuses(redis: RedisServer) -> dict[str, str]:
    """Command id → its final status (and reason); asserts that there is one at most."""
    result = {}
    for command_id, answers in responses(redis).items():
        final = [answer for answer in answers if answer["status"] in FINAL]
        assert len(final) <= 1, answers
        assert all(answer["status"] == "delivered" for answer in answers[: -len(final) or None])
        if final:
            assert answers[-1] is final[0], answers
            (one,) = final
            result[command_id] = one["status"] + (f"/{one['reason']}" if one["reason"] else "")
    return result


def device_registry(redis: RedisServer) -> dict[str, str]:
    """Device → instance."""
    found: dict[bytes, bytes] = redis.client.hgetall("connections:registry")
    return {device.decode(): owner.decode() for device, owner in found.items()}
