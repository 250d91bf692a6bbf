"""Sessions in signed cookies, and the tokens that belong to them.

A cookie holds the whole session. The server keeps only its key, and the ids of sessions that were
ended early.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from pathlib import Path
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

#: Seconds that a session lasts.
LIFETIME: Final = 12 * 3600.0
#: Characters of a cookie that is looked at.
MOST_COOKIE: Final = 1024
#: Bytes of a key.
KEY_BYTES: Final = 32
#: Ended sessions that are remembered: more than can be begun within a lifetime.
_MOST_ENDED: Final = 10_000


@frozen
class Session:
    """Somebody's browser, for some hours."""

    id: str
    operator: str
    """Name of the operator; empty before the login."""
    stamp: str
    """Of the operator's password: another one ends the session."""
    expires: float
    """Seconds since 1970."""


class Sessions:
    """Makes and checks cookies, and tokens that prove that a request comes from the console's page.

    :param key: :data:`KEY_BYTES` that nobody else knows. Another one ends all sessions.
    """

    def __init__(self, clock: IReactorTime, key: bytes) -> None:
        self._clock = clock
        self._key = key
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, operator: str = "", stamp: str = "") -> Session:
        """A new session."""
        return Session(secrets.token_urlsafe(16), operator, stamp, self._clock.seconds() + LIFETIME)

    def cookie(self, session: Session) -> str:
        """The value of the cookie of a session."""
        facts = [session.id, session.operator, session.stamp, session.expires]
        text = urlsafe_b64encode(json.dumps(facts).encode()).decode()
        return f"{text}.{self._mac('cookie', text)}"

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie; None where it is none of ours, has expired, or was ended."""
        text, dot, mac = cookie.partition(".")
        if not dot or len(cookie) > MOST_COOKIE or not cookie.isascii():
            return None
        if not hmac.compare_digest(mac, self._mac("cookie", text)):
            return None
        # It is ours, and so can be read.
        session = Session(*json.loads(urlsafe_b64decode(text)))
        return session if self.holds(session) else None

    def holds(self, session: Session) -> bool:
        """Whether it has neither expired nor been ended."""
        return session.expires > self._clock.seconds() and session.id not in self._ended

    def end(self, session: Session) -> None:
        """Let a session's cookie be of no use any more."""
        self._ended[session.id] = None
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    def token(self, session: Session) -> str:
        """What a page of ours has to send along with whatever changes something."""
        return self._mac("token", session.id)

    def knows_token(self, session: Session, given: str) -> bool:
        """Whether it was this."""
        return given.isascii() and hmac.compare_digest(given, self.token(session))

    def _mac(self, purpose: str, text: str) -> str:
        # The purpose goes first: a token can never be taken for a cookie's signature.
        made = hmac.digest(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256)
        return urlsafe_b64encode(made).decode().rstrip("=")


def session_key(path: Path | None) -> bytes:
    """The key in a file, which is made where it is missing; without a file one for now only.

    :raises ValueError: when it cannot be used; in one line.
    """
    if path is None:
        return secrets.token_bytes(KEY_BYTES)
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if path.stat().st_mode & 0o077:
                raise ValueError(f"{path}: others may read it: chmod 600 {path}") from None
        else:
            key = secrets.token_bytes(KEY_BYTES)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: a key has {KEY_BYTES} bytes: remove it, and one is made")
    return key
