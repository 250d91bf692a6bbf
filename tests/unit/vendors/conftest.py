"""Connections of devices that send lines of text."""

from __future__ import annotations

import pytest

from tests.unit.vendors.lines import LineTalk, logged_in


@pytest.fixture
def talk() -> LineTalk:
    return LineTalk()


@pytest.fixture
def online() -> LineTalk:
    return logged_in()
