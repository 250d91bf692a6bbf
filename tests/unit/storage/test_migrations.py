"""Versions of a sink's schema that are accepted."""

from __future__ import annotations

import pytest

from tracker.interfaces import SinkUnusable
from tracker.storage.migrations import check_version

KNOWN = 3


def check(found: int, *, migrate: bool) -> None:
    check_version(found, KNOWN, "fleet", url="sqlite:fleet", migrate=migrate)


@pytest.mark.parametrize("migrate", [False, True])
@pytest.mark.parametrize("found", [KNOWN + 1, KNOWN + 2])
def test_newer_schema_is_refused(found: int, migrate: bool) -> None:
    with pytest.raises(SinkUnusable, match=rf"schema version {found}\b.*\b{KNOWN}\b"):
        check(found, migrate=migrate)


@pytest.mark.parametrize("found", [0, KNOWN - 1])
def test_older_schema_is_accepted_if_it_may_be_migrated(found: int) -> None:
    check(found, migrate=True)
    with pytest.raises(SinkUnusable, match="tracker-admin migrate --sink sqlite:fleet"):
        check(found, migrate=False)


@pytest.mark.parametrize("migrate", [False, True])
def test_current_schema_is_accepted(migrate: bool) -> None:
    check(KNOWN, migrate=migrate)
