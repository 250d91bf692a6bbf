"""The answers that commands on one connection may still get after their timeouts.

An answer with a token names its command. One without a token may be the answer to any command in
its codec, even if the commands have tokens: some devices do not repeat them. Therefore an answer
without a token counts as the late one while a late answer is due. As soon as a device is known not
to repeat tokens, a command is held back until no late answer is due, so that its own answer is not
taken for a late one. Commands without a token are always held back.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from tracker.command import Answer, CommandFrame

#: Maximum number of late answers that may be due in one codec; further commands are held back.
MAX_DUE: Final = 64


class LateAnswers:
    """The late answers that are due on one connection.

    :param seconds: time after a timeout in which the answer may still arrive.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._due: dict[str, list[tuple[str, float]]] = {}
        """Codec → token, and time until which the answer may arrive; the oldest first."""
        self._without_tokens: set[str] = set()
        """The codecs in which the device has last answered without a token."""

    def timed_out(self, frame: CommandFrame) -> None:
        """Note that a command was not answered in time."""
        due = self._due.setdefault(frame.codec, [])
        due.append((frame.token, self._clock.seconds() + self._seconds))

    def delay(self, frame: CommandFrame) -> float:
        """Return the seconds for which a command is held back; 0 if it may be written now."""
        due = self._unexpired(frame.codec)
        if not due:
            return 0.0
        distinct = frame.token and all(token for token, _ in due)
        if distinct and frame.codec not in self._without_tokens:
            until = due[0][1] if len(due) >= MAX_DUE else 0.0
        else:
            until = due[-1][1]
        return max(0.0, until - self._clock.seconds())

    def take(self, answer: Answer, written: CommandFrame | None) -> bool:
        """Return True if an answer is a late one, which is then no longer due.

        :param written: the command that waits for its answer; None without such a command.
        """
        due = self._unexpired(answer.codec)
        if answer.token:
            self._without_tokens.discard(answer.codec)
            late = next((one for one in due if one[0] == answer.token), None)
        else:
            tokens = [token for token, _ in due]
            if written is not None and written.codec == answer.codec:
                tokens.append(written.token)
            if any(tokens):
                self._without_tokens.add(answer.codec)
            late = due[0] if due else None
        if late is None:
            return False
        due.remove(late)
        return True

    def _unexpired(self, codec: str) -> list[tuple[str, float]]:
        """Forget answers that are overdue; return the others, oldest first."""
        now = self._clock.seconds()
        due = [one for one in self._due.get(codec, ()) if one[1] > now]
        if due:
            self._due[codec] = due
        else:
            self._due.pop(codec, None)
        return due
