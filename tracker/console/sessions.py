"""Sessions in signed cookies, and their tokens.

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
SESSION_LIFETIME: Final = 12 * 3600.0
#: Seconds that a browser is known after a login.
KNOWN_LIFETIME: Final = 90 * 86_400.0
#: Maximum length of a cookie, in characters.
MAX_COOKIE_LENGTH: Final = 1024
#: Length of a key, in bytes.
KEY_BYTES: Final = 32
#: Number of ended sessions that are kept: more than users end within a session's lifetime.
_MAX_ENDED: Final = 10_000


@frozen
class Session:
    """A session of a browser."""

    id: str
    operator: str
    """Name of the operator; empty before the login."""
    stamp: str
    """Stamp of the operator's password hash; a new password ends the session."""
    expires: float
    """UNIX seconds."""


class Sessions:
    """Cookies of sessions, and tokens that prove that the console's page made a request.

    :param key: :data:`KEY_BYTES` secret bytes. A new key ends all sessions.
    """

    def __init__(self, clock: IReactorTime, key: bytes) -> None:
        self._clock = clock
        self._key = key
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, operator: str = "", stamp: str = "") -> Session:
        """Return a new session."""
        return Session(
            secrets.token_urlsafe(16), operator, stamp, self._clock.seconds() + SESSION_LIFETIME
        )

    def cookie(self, session: Session) -> str:
        """Return the value of a session's cookie."""
        return self._signed("cookie", session)

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None if it is not ours, has expired, or was ended."""
        session = self._read("cookie", cookie)
        return session if session is not None and self.is_valid(session) else None

    def known(self, operator: str, stamp: str) -> str:
        """Return the value of a cookie by which a browser is known after its session."""
        expires = self._clock.seconds() + KNOWN_LIFETIME
        return self._signed("known", Session(secrets.token_urlsafe(16), operator, stamp, expires))

    def read_known(self, cookie: str) -> Session | None:
        """Return the login that :meth:`known` recorded; None if it is not ours or has expired."""
        known = self._read("known", cookie)
        return known if known is not None and known.expires > self._clock.seconds() else None

    def _signed(self, purpose: str, session: Session) -> str:
        facts = [session.id, session.operator, session.stamp, session.expires]
        text = urlsafe_b64encode(json.dumps(facts).encode()).decode()
        return f"{text}.{self._mac(purpose, text)}"

    def _read(self, purpose: str, cookie: str) -> Session | None:
        text, dot, mac = cookie.partition(".")
        if not dot or len(cookie) > MAX_COOKIE_LENGTH or not cookie.isascii():
            return None
        if not hmac.compare_digest(mac, self._mac(purpose, text)):
            return None
        # The signature is valid: we made this text, and it can be parsed.
        return Session(*json.loads(urlsafe_b64decode(text)))

    def is_valid(self, session: Session) -> bool:
        """Return True if a session has neither expired nor been ended."""
        return session.expires > self._clock.seconds() and session.id not in self._ended

    def end(self, session: Session) -> None:
        """Invalidate a session's cookie."""
        self._ended[session.id] = None
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    def token(self, session: Session) -> str:
        """Return the token that the page sends with requests that change something."""
        return self._mac("token", session.id)

    def token_matches(self, session: Session, given: str) -> bool:
        """Return True if ``given`` is the session's token."""
        return given.isascii() and hmac.compare_digest(given, self.token(session))

    def _mac(self, purpose: str, text: str) -> str:
        # The purpose goes first: a token can never be taken for a cookie's signature.
        made = hmac.digest(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256)
        return urlsafe_b64encode(made).decode().rstrip("=")


def session_key(path: Path | None) -> bytes:
    """Return the key in a file, which is created if it is missing.

    :param path: None for a new key that is not stored.
    :raises ValueError: if the file cannot be used, with the reason in one line.
    """
    if path is None:
        return secrets.token_bytes(KEY_BYTES)
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if path.stat().st_mode & 0o077:
                raise ValueError(
                    f"{path}: other users can access it; run chmod 600 {path}"
                ) from None
        else:
            key = secrets.token_bytes(KEY_BYTES)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: not a key of {KEY_BYTES} bytes; remove it to create a new one")
    return key
