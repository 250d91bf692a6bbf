"""Checks that positions can be stored in the sink that a URL names."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from tracker.observe.examination import Examination
from tracker.observe.findings import Finding, failure, skipped
from tracker.reactor import Reactor
from tracker.storage.jsonlines import checks as jsonlines
from tracker.storage.sinks import POSTGRESQL, sink_kind
from tracker.storage.sqlite import checks as sqlite

NOT_GIVEN: Final = "neither --sink nor TRACKER_SINK says where positions are stored"


def check_url(url: str) -> None:
    """Return if the URL of a sink makes sense.

    :raises ValueError: if not; holds no password.
    """
    kind, _ = sink_kind(url)
    if kind in POSTGRESQL:
        # Without psycopg nobody can tell, and that is a finding of its own.
        with suppress(ImportError):
            from tracker.storage.postgresql.address import PostgreSQLAddress

            PostgreSQLAddress.from_url(url)


async def examine_sink(reactor: Reactor, examination: Examination, url: str | None) -> None:
    """Run all checks of a sink.

    :param url: was accepted by :func:`check_url`; None if no sink is configured.
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


def no_psycopg(why: str) -> Finding:
    """Return the finding that psycopg is not installed."""
    return failure(
        f"psycopg cannot be used: {why}", "/opt/tracker/bin/pip install 'tracker[postgresql]'"
    )
