"""Who is at the browser, and what they may do."""

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

#: Failed attempts to log in, from one address and by one name, within so many seconds.
MOST_BY_ADDRESS: Final = 20
MOST_BY_NAME: Final = 10
PERIOD: Final = 900.0
#: Passwords that are checked at the same time: each takes 32 MiB.
MOST_CHECKED: Final = 4
#: The header with the token of a session.
TOKEN_HEADER: Final = "x-csrf-token"  # noqa: S105 - a header's name


class Denied(Exception):
    """A request is not answered; the text says why, to people."""

    def __init__(self, status: int, text: str, wait: float = 0) -> None:
        super().__init__(text)
        self.status = status
        self.wait = wait
        """Seconds after which it may be tried again."""


@frozen
class Visitor:
    """Whoever has sent a request."""

    session: Session
    role: str
    """``read`` or ``operate``; empty where they have to log in first."""


class Access:
    """Sees to it that requests come from those who may send them.

    Without operators whoever reaches it may do everything: then it listens on loopback only.

    :param operators: None where nobody has to log in.
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
        """Whether one has to log in."""
        return self._operators is not None

    def greet(self, request: Any) -> tuple[Visitor, str]:
        """Who this is, with a session if need be, and the token of that.

        :raises Denied: when somebody else's page asks.
        """
        # A link of theirs comes without our cookie, and a new one would log the operator out.
        _check_asks_itself(request)
        session = self._session(request)
        if session is None:
            session = self._sessions.begin()
            self._set_cookie(request, session)
        return Visitor(session, self._role(session)), self._sessions.token(session)

    def visitor(self, request: Any) -> Visitor:
        """Whoever may look.

        :raises Denied: when they have to log in, or somebody else's page asks.
        """
        # It could read nothing, but take up live views and the database.
        _check_asks_itself(request)
        session = self._session(request)
        if session is None:
            if self.asks:
                raise Denied(401, "log in first")
            session = self._sessions.begin()  # it is of no further use
        role = self._role(session)
        if not role:
            raise Denied(401, "log in first")
        return Visitor(session, role)

    def changing(self, request: Any) -> Visitor:
        """Whoever may change something, by a page of ours.

        :raises Denied: when they may not, or it is not.
        """
        self._check_page(request)
        visitor = self.visitor(request)
        if visitor.role != "operate":
            raise Denied(403, "you may look, but not send commands")
        return visitor

    async def log_in(self, request: Any, name: str, password: str) -> tuple[Visitor, str]:
        """Begin a session for an operator; and its token.

        :raises Denied: when they may not, or not now.
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
        return Visitor(session, self._role(session)), self._sessions.token(session)

    def may_stay(self, visitor: Visitor) -> bool:
        """Whether who was let in would be let in still."""
        session = visitor.session
        if self._operators is None:
            return True
        return self._sessions.holds(session) and bool(self._role(session))

    def log_out(self, request: Any) -> None:
        """End the session.

        :raises Denied: when it is not asked for by a page of ours.
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
        """:raises Denied: when a request comes from a page that is not ours."""
        session = self._session(request)
        given = request.getHeader(TOKEN_HEADER) or ""
        if not same_origin(request):
            raise Denied(403, "not from a page of this console")
        if session is None or not self._sessions.knows_token(session, given):
            raise Denied(403, "the page is out of date: load it again")

    def _role(self, session: Session) -> str:
        if self._operators is None:
            return "operate"
        operator = self._operators.get(session.operator) if session.operator else None
        if operator is None or operator.password.stamp != session.stamp:
            return ""
        return operator.role

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
    """Cookies know no ports: two consoles on one host must not share a name.

    ``__Host-`` makes a browser insist on TLS, and on this very host (RFC 6265bis, 4.1.3).
    """
    port = getattr(request.getHost(), "port", 0)
    if request.isSecure():
        return f"__Host-tracker-{port}".encode()
    return f"tracker-{port}".encode()
