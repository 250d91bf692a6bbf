"""Authenticate the users of the console, and check their permissions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from tracker.console.loginattempts import LoginAttempts
from tracker.console.operators import MAX_PASSWORD_LENGTH, Operators
from tracker.console.requests import is_cross_site, is_same_origin
from tracker.console.sessions import KNOWN_LIFETIME, SESSION_LIFETIME, Session, Sessions
from tracker.net.shares import address_group
from tracker.observe.ratelimit import LimitedLog

#: Failed logins within the period in seconds: from one address; from one address for one name; for
#: one name; and from one browser that has logged in by this name before.
MAX_ATTEMPTS_BY_ADDRESS: Final = 20
MAX_ATTEMPTS_BY_NAME: Final = 10
MAX_ATTEMPTS_BY_BROWSER: Final = 10
ATTEMPT_PERIOD: Final = 900.0
#: Seconds between two attempts for a name beyond its limit, or through a proxy beyond its limit. A
#: name is never locked, because others could then lock out its operator.
PACE: Final = 10.0
#: Passwords that are checked at the same time; each check takes 32 MiB of memory. Known browsers
#: may use all of them, others all but one.
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
        self._attempts = _Attempts(clock)
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
        browser = self._known_browser(request, name)
        attempt = self._attempts.of(address, name, browser)
        if attempt.wait:
            self._warn(address, "too many attempts")
            raise Denied(429, "too many attempts", attempt.wait)
        if self._checking >= MAX_CONCURRENT_CHECKS - (browser is None):
            raise Denied(503, "too many logins at the same time", 1)
        # The attempt counts before its result is known, which limits parallel attempts, too.
        attempt.add()
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
        attempt.remove()
        before = self._session(request)
        if before is not None:
            self._sessions.end(before)
        session = self._sessions.begin(name, hashed.stamp)
        self._set_cookie(request, session)
        self._remember_browser(request, name, hashed.stamp)
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
        value = "" if session is None else self._sessions.cookie(session)
        _add_cookie(
            request, _cookie_name(request), value, 0 if session is None else SESSION_LIFETIME
        )

    def _known_browser(self, request: Any, name: str) -> str | None:
        """Return the ID of a browser that has logged in by this name and password before."""
        cookie = request.getCookie(_cookie_name(request, "known"))
        known = None if cookie is None else self._sessions.read_known(cookie.decode("latin-1"))
        operator = None if self._operators is None else self._operators.get(name)
        if known is None or operator is None:
            return None
        matches = (known.operator, known.stamp) == (name, operator.password.stamp)
        return known.id if matches else None

    def _remember_browser(self, request: Any, name: str, stamp: str) -> None:
        value = self._sessions.known(name, stamp)
        _add_cookie(request, _cookie_name(request, "known"), value, KNOWN_LIFETIME)


class _Attempts:
    """The limits of attempts to log in. None of them can be used up for another's known browser."""

    def __init__(self, clock: IReactorTime) -> None:
        self._by_address = LoginAttempts(clock, MAX_ATTEMPTS_BY_ADDRESS, ATTEMPT_PERIOD)
        self._by_both = LoginAttempts(clock, MAX_ATTEMPTS_BY_NAME, ATTEMPT_PERIOD)
        self._by_name = LoginAttempts(clock, MAX_ATTEMPTS_BY_NAME, ATTEMPT_PERIOD)
        self._by_browser = LoginAttempts(clock, MAX_ATTEMPTS_BY_BROWSER, ATTEMPT_PERIOD)
        self._pace = LoginAttempts(clock, 1, PACE)

    def of(self, address: str, name: str, browser: str | None) -> _Attempt:
        """Return an attempt that is not counted yet.

        :param address: group of the client's address.
        :param browser: the ID of a browser that has logged in by this name before, or None.
        """
        if browser is not None:
            return _Attempt([(self._by_browser, browser)])
        limits = [(self._by_address, address), (self._by_name, name)]
        if _is_proxy(address):
            # All clients of the proxy have this address, and must not lock out each other.
            paced = [(self._by_address, address), (self._by_name, name)]
        else:
            limits.append((self._by_both, f"{address} {name}"))
            paced = [(self._by_name, name)]
        return _Attempt(limits, paced, self._pace)


@frozen
class _Attempt:
    """One attempt to log in."""

    limits: Sequence[tuple[LoginAttempts, str]]
    """Each limit, and the client of it."""
    paced: Sequence[tuple[LoginAttempts, str]] = ()
    """Those limits that slow attempts down to :data:`PACE` instead of refusing them."""
    pace: LoginAttempts | None = None

    @property
    def wait(self) -> float:
        """Seconds until the attempt is allowed; 0 if it is allowed now."""
        found = [limit.wait(client) for limit, client in self.limits if not self._is_paced(limit)]
        found += [self.pace.wait(client) for client in self._over if self.pace is not None]
        return max(found, default=0.0)

    def add(self) -> None:
        """Count the attempt."""
        over = self._over
        for limit, client in self.limits:
            limit.add(client)
        for client in over:
            if self.pace is not None:
                self.pace.add(client)

    def remove(self) -> None:
        """Do not count the attempt, because it has succeeded."""
        for limit, client in self.limits:
            limit.remove_last(client)

    @property
    def _over(self) -> list[str]:
        """The clients of paced limits that are used up, as keys of the pace."""
        return [client for limit, client in self.paced if limit.wait(client)]

    def _is_paced(self, limit: LoginAttempts) -> bool:
        return any(limit is one for one, _ in self.paced)


def _is_proxy(address: str) -> bool:
    """Return True if a proxy on this machine is the client."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return not address  # a UNIX socket


def _check_not_cross_site(request: Any) -> None:
    if is_cross_site(request):
        raise Denied(403, _NOT_OUR_PAGE)


def _add_cookie(request: Any, name: bytes, value: str, lifetime: float) -> None:
    request.addCookie(
        name,
        value.encode(),
        path=b"/",
        max_age=str(int(lifetime)).encode(),
        secure=request.isSecure(),
        httpOnly=True,
        sameSite=b"strict",
    )


def _cookie_name(request: Any, suffix: str = "") -> bytes:
    """Return the name of a cookie, which contains the port because cookies ignore ports.

    ``__Host-`` makes a browser accept the cookie over TLS and for this host only
    (RFC 6265bis, 4.1.3).
    """
    port = getattr(request.getHost(), "port", 0)
    name = f"tracker-{port}-{suffix}" if suffix else f"tracker-{port}"
    return f"__Host-{name}".encode() if request.isSecure() else name.encode()
