"""Conversion of Redis replies to Python values."""

from __future__ import annotations

import pytest

from tracker.redis.replies import info_fields, mapping


def test_alternating_names_and_values_become_a_mapping() -> None:
    assert mapping([]) == {}
    assert mapping([b"a", 1, b"b", [2], b"a", 3]) == {b"a": 3, b"b": [2]}


def test_name_without_value_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mapping([b"a", b"1", b"b"])


def test_info_fields_of_all_sections_are_returned() -> None:
    reply = b"# Server\r\nredis_version:7.2.4\r\n\r\n# Memory\r\nmaxmemory:0\r\nname:a:\xff\r\n"
    assert info_fields(reply) == {"redis_version": "7.2.4", "maxmemory": "0", "name": "a:\\xff"}
