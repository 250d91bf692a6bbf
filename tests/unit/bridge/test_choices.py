"""Device IDs and codecs of the installed vendors in the collections."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.plainvendor import install
from tracker.bridge.choices import collections


@pytest.fixture
def fields(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Name → ``meta`` of the fields of commands."""
    install(monkeypatch).command_codecs = ("12", "plain")
    commands = collections()[0]
    return {one["field"]: one["meta"] for one in commands.fields}


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *(("356307042441013", True), ("00af", True), ("00AF", True)),
        *(("", False), ("00ag", False), ("00af0", False), ("x00af", False)),
        ("1" * 16, False),
    ],
)
def test_form_accepts_the_device_ids_of_all_vendors(
    fields: dict[str, Any], text: str, valid: bool
) -> None:
    (rule,) = fields["imei"]["validation"]["_and"]
    assert bool(re.search(rule["imei"]["_regex"], text)) == valid
    assert "4 hex digits" in fields["imei"]["validation_message"]


def test_form_offers_the_command_codecs_of_all_vendors(fields: dict[str, Any]) -> None:
    choices = {one["value"]: one["text"] for one in fields["codec"]["options"]["choices"]}
    assert choices["12"].startswith("12 (")
    assert "acme" in choices["12"]
    assert choices["plain"] == "plain (acme)"
