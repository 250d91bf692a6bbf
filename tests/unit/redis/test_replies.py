"""Replies of Redis as Python's values."""

from __future__ import annotations

import pytest

from tracker.redis.replies import info_facts, mapping


def test_names_and_values_in_turn_are_a_mapping() -> None:
    assert mapping([]) == {}
    assert mapping([b"a", 1, b"b", [2], b"a", 3]) == {b"a": 3, b"b": [2]}


def test_a_name_without_a_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mapping([b"a", b"1", b"b"])


def test_the_facts_of_info_are_those_of_all_its_sections() -> None:
    reply = b"# Server\r\nredis_version:7.2.4\r\n\r\n# Memory\r\nmaxmemory:0\r\nname:a:\xff\r\n"
    assert info_facts(reply) == {"redis_version": "7.2.4", "maxmemory": "0", "name": "a:\\xff"}
