"""What is ours in every conversation with Redis or a Sentinel."""

from __future__ import annotations

from typing import Any

import txredisapi

from tracker.untrusted import MAX_LINE, shown

#: From here on an error repeats what it was told: a password, or what a device has sent.
_REPEATED = ", with args beginning with"


def is_wrong_type(error: Exception) -> bool:
    """Return whether Redis refused a command because the key holds another type of value."""
    return "WRONGTYPE" in str(error)


class RedisProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """txredisapi's protocol, which raises errors without the arguments of the command.

    Their texts are printable and of bounded length.

    Replies are bytes and numbers as they came: it is made with ``charset=None`` and
    ``convertNumbers=False``.
    """

    def tryConvertData(self, data: Any) -> Any:
        """The same: looking at each part of a reply to find nothing to do takes its time."""
        return data

    @staticmethod
    def handle_reply(r: Any) -> Any:
        """The reply, or the error that it is."""
        if isinstance(r, txredisapi.ResponseError):
            raise txredisapi.ResponseError(shown(str(r).partition(_REPEATED)[0], MAX_LINE))
        return txredisapi.RedisProtocol.handle_reply(r)
