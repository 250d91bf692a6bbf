"""What is ours in every conversation with Redis or a Sentinel."""

from __future__ import annotations

from typing import Any

import txredisapi

#: From here on an error repeats what it was told: a password, or what a device has sent.
_REPEATED = ", with args beginning with"


class RedisProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """txredisapi's protocol, which tells errors without the arguments of the command.

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
            raise txredisapi.ResponseError(str(r).partition(_REPEATED)[0])
        return txredisapi.RedisProtocol.handle_reply(r)
