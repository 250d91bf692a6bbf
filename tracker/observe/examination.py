"""Run checks one after another within a time limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from inspect import isawaitable
from threading import Thread
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

from tracker.durations import format_duration
from tracker.observe.findings import Finding, skipped
from tracker.untrusted import MAX_LINE, shown

T = TypeVar("T")

#: What a check returns.
Found = Finding | Iterable[Finding]


@define
class Examination:
    """Runs checks and collects their findings; a check that raises is a finding too.

    :param seconds: time for all checks together; checks for which no time is left are skipped.
    :param expected: returns the finding for an exception that a check may raise, or None if the
        exception is a fault of the check.
    """

    clock: IReactorTime
    seconds: float
    expected: Callable[[Exception], Finding | None] = field(default=lambda error: None)
    findings: list[Finding] = field(factory=list)
    _end: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._end = self.clock.seconds() + self.seconds

    @property
    def has_time(self) -> bool:
        """True while time is left."""
        return bool(self.clock.seconds() < self._end)

    async def make(
        self,
        name: str,
        check: Callable[..., Found | Awaitable[Found]],
        *arguments: Any,
        late: Callable[[str], Finding] = skipped,
    ) -> None:
        """Run a check, and collect its findings under ``name``.

        :param late: returns the finding of a check that did not end in time; called with the
            reason.
        """
        found: Found
        try:
            found = await self._within(_called(check, *arguments))
        except TimeoutError:
            found = late(f"not done within {format_duration(self.seconds)}")
        except Exception as error:  # noqa: BLE001 - reported, and the other checks run
            found = self.expected(error) or skipped(
                f"the check failed with an internal error: {type(error).__name__}: {error}"
            )
        for finding in [found] if isinstance(found, Finding) else found:
            seen = shown(finding.seen, MAX_LINE)
            self.findings.append(evolve(finding, check=name, seen=seen))

    async def _within(self, running: Coroutine[Deferred[Any], Any, T]) -> T:
        left = self._end - self.clock.seconds()
        return await Deferred.fromCoroutine(running).addTimeout(max(0.0, left), self.clock)


async def _called(check: Callable[..., Any], *arguments: Any) -> Found:
    found = check(*arguments)
    found = await found if isawaitable(found) else found
    # A generator runs only now, so its errors are raised here.
    return found if isinstance(found, Finding) else list(found)


def in_thread(
    reactor: IReactorFromThreads, function: Callable[..., T], *arguments: Any
) -> Deferred[T]:
    """Call a blocking function in a daemon thread, and return a Deferred of its result."""
    deferred: Deferred[T] = Deferred()

    def work() -> None:
        try:
            result: T | Failure = function(*arguments)
        except Exception:  # noqa: BLE001 - raised where it is awaited
            result = Failure()
        reactor.callFromThread(deferred.callback, result)

    Thread(target=work, daemon=True, name="examination").start()
    return deferred
