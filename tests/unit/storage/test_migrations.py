"""Schemas that a program accepts, and the header lines of migrations."""

from __future__ import annotations

import pytest

from tracker import __version__
from tracker.interfaces import SinkUnusable
from tracker.storage.migrations import Migration, Schema, check_schema, migration, migrations

KNOWN = (Migration(1, "", None), Migration(2, "", None), Migration(3, "", "0.1.0"))
CURRENT = Schema(2, {3: "0.1.0"})


def check(found: Schema, *, migrate: bool) -> None:
    check_schema(found, KNOWN, "fleet", url="sqlite:fleet", migrate=migrate)


@pytest.mark.parametrize("migrate", [False, True])
@pytest.mark.parametrize("found", [Schema(3), Schema(4, {5: "0.1.0"})])
def test_database_of_another_base_is_refused(found: Schema, migrate: bool) -> None:
    with pytest.raises(SinkUnusable, match=rf"schema version {found.base}\b.*\b3: upgrade"):
        check(found, migrate=migrate)


@pytest.mark.parametrize("found", [Schema(), Schema(1), Schema(2), Schema(2, {4: "0.1.0"})])
def test_older_schema_is_accepted_if_it_may_be_migrated(found: Schema) -> None:
    check(found, migrate=True)
    with pytest.raises(SinkUnusable, match="tracker-admin migrate --sink sqlite:fleet"):
        check(found, migrate=False)


@pytest.mark.parametrize("migrate", [False, True])
def test_current_schema_is_accepted(migrate: bool) -> None:
    check(CURRENT, migrate=migrate)


@pytest.mark.parametrize("needed", ["0", "0.0.9", "0.1", __version__, "0.1.0.0", "0.1.0rc1"])
def test_later_schema_is_accepted_if_this_version_can_use_it(needed: str) -> None:
    check(Schema(2, {3: "0.1.0", 4: needed}), migrate=True)
    check(Schema(2, {3: "0.1.0", 4: needed, 5: "0.1.0"}), migrate=False)


@pytest.mark.parametrize("needed", ["99", "99.0.0", "0.99", "0.1.0.1", "malformed", ""])
def test_later_schema_is_refused_if_it_requires_a_later_version(needed: str) -> None:
    with pytest.raises(SinkUnusable, match=rf"schema version 5, .*Tracker {needed} or later"):
        check(Schema(2, {3: "0.1.0", 4: needed, 5: "0.1.0"}), migrate=True)


def test_requirement_of_a_known_migration_does_not_count() -> None:
    check(Schema(2, {3: "99"}), migrate=False)


@pytest.mark.parametrize(
    ("script", "readable_from"),
    [
        ("-- readable_from: 0.1.0\nSELECT 1", "0.1.0"),
        ("-- readable_from: 12\n", "12"),
        ("SELECT 1;\n-- readable_from: 0.1.0\n", None),
        ("-- Tables.\n", None),
    ],
)
def test_first_line_of_a_file_names_the_oldest_program(
    script: str, readable_from: str | None
) -> None:
    assert migration(7, script) == Migration(7, script, readable_from)


@pytest.mark.parametrize(("kind", "base"), [("postgresql", 1), ("sqlite", 2)])
def test_each_migration_after_the_first_tables_has_a_header(kind: str, base: int) -> None:
    headers = [one.readable_from for one in migrations(kind)]
    assert headers[:base] == [None] * base
    assert all(headers[base:])
