"""Commands as bytes: the same that txredisapi makes, made faster."""

from __future__ import annotations

import txredisapi
from hypothesis import given
from hypothesis import strategies as st

from tracker.streams.connection import _Protocol

ARGUMENTS = st.one_of(
    st.text(st.characters(codec="ascii"), max_size=20),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=20),
    st.integers(),
)


def settings() -> dict[str, object]:
    return {"charset": None, "convertNumbers": False}


@given(st.lists(ARGUMENTS, max_size=10))
def test_a_command_is_what_the_library_would_make(arguments: list[str | bytes | int]) -> None:
    expected = txredisapi.RedisProtocol(**settings())._build_command(*arguments)
    assert _Protocol(**settings())._build_command(*arguments) == expected
