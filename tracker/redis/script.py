"""Lua scripts, which Redis runs atomically and in one call."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any, Final

from attrs import Factory, field, frozen

from tracker.errors import Refused
from tracker.redis.connection import RedisConnection

#: A Lua function that returns alternating names and values, as of XINFO, as a table by name.
NAMED: Final = """\
local function named(facts)
  local found = {}
  for fact = 1, #facts, 2 do found[facts[fact]] = facts[fact + 1] end
  return found
end
"""


@frozen
class Script:
    """A script; its text is sent only to a server that does not know it yet."""

    text: str
    """Source in Lua 5.1; its keys are in KEYS, its other arguments in ARGV."""
    digest: str = field(
        init=False,
        default=Factory(
            lambda self: sha1(self.text.encode("ascii"), usedforsecurity=False).hexdigest(),
            takes_self=True,
        ),
    )

    async def run(
        self, redis: RedisConnection, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:
        """Run the script, and return its result.

        :raises Refused: if Redis reports an error.
        :raises Unavailable: if Redis is down.
        """
        call = (len(keys), *keys, *arguments)
        try:
            return await redis.execute("EVALSHA", self.digest, *call)
        except Refused as error:
            # Redis forgets scripts when it restarts; EVAL loads this one again.
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await redis.execute("EVAL", self.text, *call)
