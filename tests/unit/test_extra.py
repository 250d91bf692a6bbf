"""The field ``extra`` of a stream entry."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.extra import ARRIVED, CLOCK, FIX, MAX_EXTRA, NO_EXTRA, Extra, read_extra, widths_json
from tracker.position import BadEntry

ARRIVAL = "2026-11-22T10:00:00.000Z"


def test_facts_are_read_and_unknown_names_are_ignored() -> None:
    facts = {"widths": {"1": [239, 240], "2": [66]}, "fix": False, "arrived": ARRIVAL, "new": [1]}
    text = json.dumps(facts)
    assert read_extra(text) == Extra(text, {239: 1, 240: 1, 66: 2}, False, ARRIVAL)


def test_empty_object_states_no_facts() -> None:
    assert read_extra("{}") == Extra("{}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "extra is not JSON"),
        ("[1", "extra is not JSON"),
        ("[]", "extra is not a JSON object"),
        (r'{"note":"\u0000"}', "extra has a NUL"),
        (r'{"\u0000":1}', "extra has a NUL"),
        (r'{"note":"\ud800"}', "half of a surrogate pair"),
        ('{"fix":1}', "extra: fix"),
        ('{"arrived":"yesterday"}', "extra: arrived"),
        ('{"clock":"yesterday"}', "extra: clock"),
        ('{"clock":[]}', "extra: clock"),
        ('{"arrived":"2026-02-30T10:00:00.000Z"}', "extra: arrived"),
        ('{"widths":[66]}', "extra: widths"),
        ('{"widths":{"2":66}}', "extra: widths"),
        ('{"widths":{"two":[66]}}', "extra: widths"),
        ('{"widths":{"2":["66"]}}', "extra: widths"),
        ('{"widths":{"2":[-1]}}', "extra: widths"),
        ('{"widths":{"2":[true]}}', "extra: widths"),
        ('{"widths":{"999":[66]}}', "extra: widths"),
        ('{"a":"%s"}' % ("x" * MAX_EXTRA), "extra is not JSON"),
    ],
)
def test_malformed_field_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadEntry, match=reason):
        read_extra(text)


def test_long_text_is_read_like_a_short_one() -> None:
    text = json.dumps({"widths": {"1": list(range(2000))}})
    assert read_extra(text).widths == dict.fromkeys(range(2000), 1)


def test_mark_is_added_to_the_other_facts() -> None:
    marked = read_extra('{"widths":{"2":[66]},"serial":7}').marked(FIX, False)
    assert (marked.widths, marked.fix) == ({66: 2}, False)
    assert json.loads(marked.text) == {"widths": {"2": [66]}, "serial": 7, "fix": False}


def test_mark_replaces_an_earlier_one_of_its_name() -> None:
    marked = NO_EXTRA.marked(CLOCK, "ahead").marked(CLOCK, "old").marked(ARRIVED, ARRIVAL)
    assert json.loads(marked.text) == {"clock": "old", "arrived": ARRIVAL}
    assert (marked.clock, marked.arrived) == ("old", ARRIVAL)


@given(st.dictionaries(st.integers(0, 65535), st.sampled_from([1, 2, 4, 8, 16])))
def test_widths_are_read_as_they_were_written(widths: dict[int, int]) -> None:
    together = sorted(widths.items(), key=lambda item: item[1])
    assert read_extra(f'{{"widths":{widths_json(together)}}}').widths == widths
