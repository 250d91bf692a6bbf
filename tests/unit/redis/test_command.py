"""Encoding of commands, compared with txredisapi's slower one."""

from __future__ import annotations

import txredisapi
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tracker.redis.protocol import RedisProtocol

ARGUMENTS = st.one_of(
    st.text(st.characters(codec="ascii"), max_size=20),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=20),
    st.integers(),
)


@given(st.lists(ARGUMENTS, max_size=10))
def test_command_is_encoded_like_txredisapi(arguments: list[str | bytes | int]) -> None:
    library = txredisapi.RedisProtocol(charset=None, convertNumbers=False)
    ours = RedisProtocol(Clock(), None)
    assert ours._build_command(*arguments) == library._build_command(*arguments)
