"""Identify the user of a browser, and check what they may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from tracker.console.attempts import Attempts
from tracker.console.operators import LONGEST, Operators
from tracker.console.requests import from_elsewhere, same_origin
from tracker.console.sessions import LIFETIME, Session, Sessions
from tracker.net.shares import address_group
from tracker.observe.ratelimit import LimitedLog

#: Failed attempts to log in, from one address and by one name, within this number of seconds.
MOST_BY_ADDRESS: Final = 20
MOST_BY_NAME: Final = 10
PERIOD: Final = 900.0
#: Passwords that are checked at the same time: each takes 32 MiB.
MOST_CHECKED: Final = 4
#: The header with the token of a session.
TOKEN_HEADER: Final = "x-csrf-token"  # noqa: S105 - a header's name


class Denied(Exception):
    """A request is refused; the text gives the reason, for people."""

    def __init__(self, status: int, text: str, wait: float = 0) -> None:
        super().__init__(text)
        self.status = status
        self.wait = wait
        """Seconds after which the client may retry."""


@frozen
class Visitor:
    """The user that has sent a request."""

    session: Session
    permission: str
    """``read`` or ``operate``; empty if they have to log in first."""


class Access:
    """Checks that requests come from users who may make them.

    Without operators, every client may do everything: the console then listens on loopback only.

    :param operators: None: no login is needed.
    :param in_thread: calls a function in a thread.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        sessions: Sessions,
        operators: Operators | None,
        in_thread: Callable[..., Deferred[Any]] = deferToThread,
    ) -> None:
        self._clock = clock
        self._sessions = sessions
        self._operators = operators
        self._in_thread = in_thread
        self._by_address = Attempts(clock, MOST_BY_ADDRESS, PERIOD)
        self._by_name = Attempts(clock, MOST_BY_NAME, PERIOD)
        self._checking = 0
        self._failures = LimitedLog(clock, self._log)

    @property
    def asks(self) -> bool:
        """True if users have to log in."""
        return self._operators is not None

    def greet(self, request: Any) -> tuple[Visitor, str]:
        """Return the user, with a new session if there is none, and the session's token.

        :raises Denied: if the request comes from another site's page.
        """
        # A link of theirs comes without our cookie, and a new one would log the operator out.
        _check_asks_itself(request)
        session = self._session(request)
        if session is None:
            session = self._sessions.begin()
            self._set_cookie(request, session)
        return Visitor(session, self._permission(session)), self._sessions.token(session)

    def visitor(self, request: Any) -> Visitor:
        """Return the user of a request that reads.

        :raises Denied: if they have to log in, or the request comes from another site's page.
        """
        # It could read nothing, but take up live views and the database.
        _check_asks_itself(request)
        session = self._session(request)
        if session is None:
            if self.asks:
                raise Denied(401, "log in first")
            session = self._sessions.begin()  # it is of no further use
        permission = self._permission(session)
        if not permission:
            raise Denied(401, "log in first")
        return Visitor(session, permission)

    def changing(self, request: Any) -> Visitor:
        """Return the user of a request that changes something.

        :raises Denied: if they may not, or the request does not come from the console's page.
        """
        self._check_page(request)
        visitor = self.visitor(request)
        if visitor.permission != "operate":
            raise Denied(403, "you may look, but not send commands")
        return visitor

    async def log_in(self, request: Any, name: str, password: str) -> tuple[Visitor, str]:
        """Begin a session for an operator; return it with its token.

        :raises Denied: if name or password is wrong, or after too many attempts.
        """
        self._check_page(request)
        if self._operators is None:
            raise Denied(404, "nobody has to log in here")
        address = address_group(str(getattr(request.getClientAddress(), "host", "")))
        wait = max(self._by_address.wait(address), self._by_name.wait(name))
        if wait:
            self._warn("refused for now: too many attempts", address)
            raise Denied(429, "too many attempts", wait)
        if self._checking >= MOST_CHECKED:
            raise Denied(503, "others log in just now: try again", 1)
        # Before the outcome is known: else many could be tried at once.
        self._by_address.add(address)
        self._by_name.add(name)
        hashed = self._operators.hash_of(name)
        self._checking += 1
        try:
            fits = await self._in_thread(hashed.fits, password[: LONGEST + 1])
        finally:
            self._checking -= 1
        operator = self._operators.get(name)
        if not fits or operator is None:
            self._warn("failed", address)
            raise Denied(401, "name or password is wrong")
        self._by_address.take_back(address)
        self._by_name.forgive(name)
        before = self._session(request)
        if before is not None:
            self._sessions.end(before)
        session = self._sessions.begin(name, hashed.stamp)
        self._set_cookie(request, session)
        self._log.info("{operator} has logged in from {address}", operator=name, address=address)
        return Visitor(session, self._permission(session)), self._sessions.token(session)

    def may_stay(self, visitor: Visitor) -> bool:
        """Return whether a user who was admitted would still be admitted."""
        session = visitor.session
        if self._operators is None:
            return True
        return self._sessions.holds(session) and bool(self._permission(session))

    def log_out(self, request: Any) -> None:
        """End the session.

        :raises Denied: if the request does not come from the console's page.
        """
        self._check_page(request)
        session = self._session(request)
        if session is not None:
            self._sessions.end(session)
        self._set_cookie(request, None)

    def _warn(self, what: str, address: str) -> None:
        # Anybody who can reach the console can cause these.
        self._failures.warn("login {what}, from {address}", what=what, address=address)

    def _check_page(self, request: Any) -> None:
        """:raises Denied: if a request does not come from the console's page."""
        session = self._session(request)
        given = request.getHeader(TOKEN_HEADER) or ""
        if not same_origin(request):
            raise Denied(403, "not from a page of this console")
        if session is None or not self._sessions.knows_token(session, given):
            raise Denied(403, "the page is out of date: load it again")

    def _permission(self, session: Session) -> str:
        if self._operators is None:
            return "operate"
        operator = self._operators.get(session.operator) if session.operator else None
        if operator is None or operator.password.stamp != session.stamp:
            return ""
        return operator.permission

    def _session(self, request: Any) -> Session | None:
        cookie = request.getCookie(_cookie_name(request))
        return None if cookie is None else self._sessions.read(cookie.decode("latin-1"))

    def _set_cookie(self, request: Any, session: Session | None) -> None:
        request.addCookie(
            _cookie_name(request),
            b"" if session is None else self._sessions.cookie(session).encode(),
            path=b"/",
            max_age=b"0" if session is None else str(int(LIFETIME)).encode(),
            secure=request.isSecure(),
            httpOnly=True,
            sameSite=b"strict",
        )


def _check_asks_itself(request: Any) -> None:
    if from_elsewhere(request):
        raise Denied(403, "not from a page of this console")


def _cookie_name(request: Any) -> bytes:
    """Return the name of the cookie. Cookies ignore ports: two consoles on one host need two names.

    ``__Host-`` makes a browser insist on TLS, and on this very host (RFC 6265bis, 4.1.3).
    """
    port = getattr(request.getHost(), "port", 0)
    if request.isSecure():
        return f"__Host-tracker-{port}".encode()
    return f"tracker-{port}".encode()
