"""Checks of the sink in a URL."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from tracker.observe.examination import Examination
from tracker.observe.findings import Finding, failure, skipped
from tracker.reactor import Reactor
from tracker.storage.jsonlines import checks as jsonlines
from tracker.storage.sinks import POSTGRESQL, sink_kind
from tracker.storage.sqlite import checks as sqlite

NOT_GIVEN: Final = "neither --sink nor TRACKER_SINK is set"


def check_url(url: str) -> None:
    """Check that the URL of a sink is valid.

    :raises ValueError: if not; the text contains no password.
    """
    kind, _ = sink_kind(url)
    if kind in POSTGRESQL:
        # Without psycopg this cannot be checked, and a missing psycopg is a separate finding.
        with suppress(ImportError):
            from tracker.storage.postgresql.address import PostgreSQLAddress

            PostgreSQLAddress.from_url(url)


async def examine_sink(reactor: Reactor, examination: Examination, url: str | None) -> None:
    """Run all checks of a sink.

    :param url: a URL that :func:`check_url` accepts; None if no sink is configured.
    """
    if not url:
        hint = "tracker-admin doctor --sink URL"
        await examination.make("sink-reachable", skipped, NOT_GIVEN, hint)
        return
    kind, rest = sink_kind(url)
    if kind in POSTGRESQL:
        try:
            from tracker.storage.postgresql import checks as postgresql
        except ImportError as error:
            await examination.make("sink-reachable", no_psycopg, str(error))
        else:
            await postgresql.examine(reactor, examination, url)
        return
    if kind == "sqlite":
        await sqlite.examine(reactor, examination, rest)
    else:
        await jsonlines.examine(examination, rest)


def no_psycopg(reason: str) -> Finding:
    """Return the finding that psycopg is not installed."""
    return failure(
        f"psycopg cannot be imported: {reason}",
        "/opt/tracker/bin/pip install 'tracker-plane[postgresql]'",
    )
