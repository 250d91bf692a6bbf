"""Permissions of the roles' Redis users in users.acl."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tracker
from tracker.redis.rights import OPTIONAL, commands, grants

PACKAGE = Path(tracker.__file__).parent
ROLES = ["ingest", "process", "janitor", "bridge", "console", "admin"]


def test_each_role_has_a_user_in_the_access_control_list() -> None:
    assert list(grants()) == ROLES


def test_selector_is_parsed_to_its_commands_and_key_patterns() -> None:
    rights = grants()["process"]
    assert "ping" in rights[0].commands
    assert rights[0].patterns == ()
    (dead,) = [grant for grant in rights if "xadd" in grant.commands]
    assert (dead.commands, dead.patterns) == (("xadd",), ("telemetry:*:dead",))


@pytest.mark.parametrize("role", ROLES)
def test_each_granted_command_has_an_example_with_arguments(role: str) -> None:
    names = {name for grant in grants()[role] for name in grant.commands} - OPTIONAL
    made = commands(role, ["one", "two"])
    assert len(made) == len(set(made))
    assert {one[0].lower() for one in made} == {name.partition("|")[0] for name in names}


def test_stream_names_replace_the_pattern_of_their_keys() -> None:
    made = commands("process", ["one", "two"])
    assert ("XADD", "one:dead", "*", "a", "b") in made
    assert ("XACK", "two", "group", "0-1") in made
    assert not any("telemetry" in word for one in made for word in one)


def test_every_command_in_the_code_is_granted_to_a_role() -> None:
    listed = {
        name.partition("|")[0].upper()
        for rights in grants().values()
        for grant in rights
        for name in grant.commands
    }
    sent = set()
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "storage"):
            continue  # these modules execute SQL
        text = path.read_text(encoding="utf-8")
        sent |= set(re.findall(r"redis\.p?call\('([A-Z]+)'", text))
        sent |= set(re.findall(r"execute\(\s*\*?\(?\"([A-Z]+)\"", text))
    assert len(sent) > 30
    assert sent <= listed
