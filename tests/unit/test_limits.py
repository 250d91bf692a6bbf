"""Limits: their defaults and their bounds."""

from __future__ import annotations

import attrs
import pytest

from tracker.limits import Limits
from tracker.settings import options_of


@pytest.mark.parametrize("frame_bytes", [64, 65, 8192, 1 << 20])
def test_limits_within_bounds_are_accepted(frame_bytes: int) -> None:
    assert Limits(frame_bytes).frame_bytes == frame_bytes


@pytest.mark.parametrize("name", [attribute.name for attribute in attrs.fields(Limits)])
def test_limits_out_of_bounds_are_rejected(name: str) -> None:
    for value in (-1, 0, 1e12):
        with pytest.raises(ValueError, match="must be between"):
            Limits(**{name: value})  # type: ignore[arg-type]


def test_default_limits_exceed_the_longest_frames_of_devices() -> None:
    # The vendor documents AVL packets of up to 1,280 bytes.
    assert Limits().frame_bytes > 2 * 1280


def test_default_buffer_holds_the_largest_frame() -> None:
    assert Limits().buffer_bytes >= Limits().frame_bytes + 12


def test_every_limit_is_an_option_with_a_help_text() -> None:
    options = {name: (default, text) for name, default, text in options_of(Limits)}
    assert options["frame-bytes"][0] == 8192
    assert len(options) == len(attrs.fields(Limits))
    assert all(text.endswith((".", "]")) for _, text in options.values())
