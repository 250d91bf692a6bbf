"""Confirmation of commands that cannot be undone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

#: The option that replaces the question.
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def require_terminal(yes: bool) -> None:
    """Raise an error of usage if the question cannot be asked.

    :param yes: True if it need not be asked.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(
            "Cannot ask for confirmation (not a terminal). Add --yes to proceed."
        )


def confirm(question: str) -> bool:
    """Ask a question on standard error, and return True if the answer is yes."""
    with _interruptible():
        return click.confirm(question, err=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt a prompt; otherwise the reactor handles it only after the prompt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
