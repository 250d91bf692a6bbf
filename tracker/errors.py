"""Errors that several packages raise."""

from __future__ import annotations


class Unavailable(Exception):
    """The server is not reachable; a request that was sent may or may not have been carried out."""


class Unanswered(Unavailable):
    """The server has received the request, and has not replied in time."""


class Refused(Exception):
    """The server has replied with an error, and has not carried out the request."""


class RunFailed(Exception):
    """Failure of a command line's command; the message is the reason in one line."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code
