"""Authenticate the users of the console, and check their permissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from tracker.console.loginattempts import LoginAttempts
from tracker.console.operators import MAX_PASSWORD_LENGTH, Operators
from tracker.console.requests import is_cross_site, is_same_origin
from tracker.console.sessions import SESSION_LIFETIME, Session, Sessions
from tracker.net.shares import address_group
from tracker.observe.ratelimit import LimitedLog

#: Failed logins from one address, and for one name, within the period in seconds.
MAX_ATTEMPTS_BY_ADDRESS: Final = 20
MAX_ATTEMPTS_BY_NAME: Final = 10
ATTEMPT_PERIOD: Final = 900.0
#: Passwords that are checked at the same time; each check takes 32 MiB of memory.
MAX_CONCURRENT_CHECKS: Final = 4
#: Header with the token of a session.
TOKEN_HEADER: Final = "x-csrf-token"  # noqa: S105 - a header's name


_NOT_OUR_PAGE: Final = "the request does not come from a page of this console"


class Denied(Exception):
    """Refusal of a request. The message gives the reason to the user.

    :param status: of the HTTP response.
    :param wait: seconds after which the client may retry; 0 if a retry does not help.
    """

    def __init__(self, status: int, text: str, wait: float = 0) -> None:
        super().__init__(text)
        self.status = status
        self.wait = wait


@frozen
class Visitor:
    """The user who sent a request."""

    session: Session
    permission: str
    """``read`` or ``operate``; empty before the login."""


class Access:
    """Access control: logins, and the permissions that requests require.

    Without operators every user has all permissions; the console then listens on loopback only.

    :param operators: None if no login is required.
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
        self._by_address = LoginAttempts(clock, MAX_ATTEMPTS_BY_ADDRESS, ATTEMPT_PERIOD)
        self._by_name = LoginAttempts(clock, MAX_ATTEMPTS_BY_NAME, ATTEMPT_PERIOD)
        self._checking = 0
        self._failures = LimitedLog(clock, self._log)

    @property
    def login_required(self) -> bool:
        """True if users must log in."""
        return self._operators is not None

    def start_session(self, request: Any) -> tuple[Visitor, str]:
        """Return the user, with a new session if they have none, and the session's token.

        :raises Denied: if a page of another site made the request.
        """
        # SameSite=strict omits the cookie in such a request. A new cookie in the response would
        # replace the operator's, and log them out.
        _check_not_cross_site(request)
        session = self._session(request)
        if session is None:
            session = self._sessions.begin()
            self._set_cookie(request, session)
        return Visitor(session, self._permission(session)), self._sessions.token(session)

    def authorize(self, request: Any) -> Visitor:
        """Return the user of a request that changes nothing.

        :raises Denied: if they are not logged in, or a page of another site made the request.
        """
        # Browsers hide the response from such a page, but the request would use up live views and
        # queries of the database.
        _check_not_cross_site(request)
        session = self._session(request)
        if session is None:
            if self.login_required:
                raise Denied(401, "log in first")
            session = self._sessions.begin()  # for this request only; no cookie is set
        permission = self._permission(session)
        if not permission:
            raise Denied(401, "log in first")
        return Visitor(session, permission)

    def authorize_change(self, request: Any) -> Visitor:
        """Return the user of a request that changes something.

        :raises Denied: if they lack the permission, or the console's page did not make the request.
        """
        self._check_token(request)
        visitor = self.authorize(request)
        if visitor.permission != "operate":
            raise Denied(403, "you have read-only access")
        return visitor

    async def log_in(self, request: Any, name: str, password: str) -> tuple[Visitor, str]:
        """Start a session of an operator; return the user and the session's token.

        :raises Denied: if name or password is wrong, or after too many attempts.
        """
        self._check_token(request)
        if self._operators is None:
            raise Denied(404, "this console requires no login")
        address = address_group(str(getattr(request.getClientAddress(), "host", "")))
        wait = max(self._by_address.wait(address), self._by_name.wait(name))
        if wait:
            self._warn(address, "too many attempts")
            raise Denied(429, "too many attempts", wait)
        if self._checking >= MAX_CONCURRENT_CHECKS:
            raise Denied(503, "too many logins at the same time", 1)
        # The attempt counts before its result is known, which limits parallel attempts, too.
        self._by_address.add(address)
        self._by_name.add(name)
        hashed = self._operators.hash_of(name)
        self._checking += 1
        try:
            matches = await self._in_thread(hashed.matches, password[: MAX_PASSWORD_LENGTH + 1])
        finally:
            self._checking -= 1
        operator = self._operators.get(name)
        if not matches or operator is None:
            self._warn(address, "wrong name or password")
            raise Denied(401, "wrong name or password")
        self._by_address.remove_last(address)
        self._by_name.clear(name)
        before = self._session(request)
        if before is not None:
            self._sessions.end(before)
        session = self._sessions.begin(name, hashed.stamp)
        self._set_cookie(request, session)
        self._log.info(
            "operator {operator} logged in from {address}", operator=name, address=address
        )
        return Visitor(session, self._permission(session)), self._sessions.token(session)

    def may_stay(self, visitor: Visitor) -> bool:
        """Return True if a user who was authorized to read still is."""
        session = visitor.session
        if self._operators is None:
            return True
        return self._sessions.is_valid(session) and bool(self._permission(session))

    def log_out(self, request: Any) -> None:
        """End the session.

        :raises Denied: if the console's page did not make the request.
        """
        self._check_token(request)
        session = self._session(request)
        if session is not None:
            self._sessions.end(session)
        self._set_cookie(request, None)

    def _warn(self, address: str, reason: str) -> None:
        # Every client that reaches the console can cause these lines.
        self._failures.warn(
            "login from {address} refused: {reason}", address=address, reason=reason
        )

    def _check_token(self, request: Any) -> None:
        session = self._session(request)
        given = request.getHeader(TOKEN_HEADER) or ""
        if not is_same_origin(request):
            raise Denied(403, _NOT_OUR_PAGE)
        if session is None or not self._sessions.token_matches(session, given):
            raise Denied(403, "this page is out of date; reload it")

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
            max_age=b"0" if session is None else str(int(SESSION_LIFETIME)).encode(),
            secure=request.isSecure(),
            httpOnly=True,
            sameSite=b"strict",
        )


def _check_not_cross_site(request: Any) -> None:
    if is_cross_site(request):
        raise Denied(403, _NOT_OUR_PAGE)


def _cookie_name(request: Any) -> bytes:
    """Return the name of the cookie, which contains the port because cookies ignore ports.

    ``__Host-`` makes a browser accept the cookie over TLS and for this host only
    (RFC 6265bis, 4.1.3).
    """
    port = getattr(request.getHost(), "port", 0)
    if request.isSecure():
        return f"__Host-tracker-{port}".encode()
    return f"tracker-{port}".encode()
