"""Strategies for records and packets: all that the wire can express."""

from __future__ import annotations

from hypothesis import strategies as st

from tracker.vendors.teltonika.avl import (
    CODEC_8,
    CODEC_8_FIVE_GROUPS,
    CODEC_8E,
    CODEC_16,
    FIFTH_WIDTH,
    Codec,
    Element,
    Packet,
    Record,
)

codecs = st.sampled_from([CODEC_8, CODEC_8E, CODEC_16])


def unsigned(width: int) -> st.SearchStrategy[int]:
    """Return a strategy for unsigned integers of a width in bytes."""
    return st.integers(0, 256**width - 1)


def signed(width: int) -> st.SearchStrategy[int]:
    """Return a strategy for signed integers of a width in bytes."""
    return st.integers(-(256**width) // 2, 256**width // 2 - 1)


def ids(codec: Codec) -> st.SearchStrategy[int]:
    """Return a strategy for the IO IDs of a codec."""
    return unsigned(codec.event.size)


@st.composite
def elements(draw: st.DrawFn, codec: Codec) -> tuple[Element, ...]:
    """Draw elements of fixed width, in the order of the wire; ids may repeat."""
    drawn: list[Element] = []
    for width in codec.element:
        values: st.SearchStrategy[int | bytes] = unsigned(width)
        if width == FIFTH_WIDTH:
            values = st.binary(min_size=width, max_size=width)
        group = st.lists(st.tuples(ids(codec), values), max_size=4)
        drawn.extend((element_id, width, value) for element_id, value in draw(group))
    return tuple(drawn)


def variable(codec: Codec) -> st.SearchStrategy[tuple[tuple[int, bytes], ...]]:
    """Return a strategy for variable-length elements; empty if the codec does not have them."""
    if codec is not CODEC_8E:
        return st.just(())
    content = st.one_of(st.just(b""), st.binary(max_size=20), st.binary(min_size=255, max_size=257))
    return st.lists(st.tuples(unsigned(2), content), max_size=3).map(tuple)


def records(codec: Codec) -> st.SearchStrategy[Record]:
    """Return a strategy for records with any value in any field."""
    return st.builds(
        Record,
        timestamp=unsigned(8),
        priority=unsigned(1),
        longitude=signed(4),
        latitude=signed(4),
        altitude=signed(2),
        angle=unsigned(2),
        satellites=unsigned(1),
        speed=unsigned(2),
        event=ids(codec),
        elements=elements(codec),
        variable=variable(codec),
        generation=unsigned(1) if codec is CODEC_16 else st.none(),
    )


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """Draw a packet of any codec, with zero or more records."""
    codec = draw(codecs)
    return Packet(codec, tuple(draw(st.lists(records(codec), max_size=5))))


#: Packets of Codec 8 with a fifth group in each record; a few can be read without it, too.
five_group_packets = st.lists(records(CODEC_8_FIVE_GROUPS), max_size=5).map(
    lambda drawn: Packet(CODEC_8_FIVE_GROUPS, tuple(drawn))
)
