"""What a watcher is shown of a device's traffic."""

from __future__ import annotations

import json

import pytest
from zope.interface.verify import verifyObject

from tests.unit.vendors.teltonika.golden import GOLDEN, LOGIN
from tests.unit.vendors.teltonika.units import COMMAND, EXAMPLES, as_document
from tracker.interfaces import IVendor, Traffic
from tracker.vendors.teltonika.description import describe
from tracker.vendors.teltonika.vendor import Teltonika


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=list(EXAMPLES))
@pytest.mark.parametrize("sent", [False, True])
def test_a_unit_is_shown_as_it_is_decoded(data: bytes, sent: bool) -> None:
    assert describe(data, sent) == as_document(data, False)


def test_the_answer_to_a_login_is_told_from_what_a_device_sends() -> None:
    assert describe(b"\x01", True) == {"login": "accepted"}
    assert describe(b"\x00", True) == {"login": "refused"}
    assert "login" not in describe(b"\x01", False)


@pytest.mark.parametrize(
    ("data", "count"),
    [(b"\x00\x00\x00\x00", 0), (b"\x00\x00\x00\x01", 1), (b"\x00\x00\x00\xff", 255)],
)
def test_an_acknowledgement_is_told_with_its_number(data: bytes, count: int) -> None:
    assert describe(data, True) == {"acknowledged": count}
    assert "acknowledged" not in describe(data, False)


def test_a_command_that_is_sent_is_shown_with_its_text() -> None:
    assert describe(COMMAND, True)["text"] == as_document(COMMAND, False)["text"]


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00" * 3, b"\xfe" * 20, LOGIN[:-1], b"GET /"])
def test_what_is_none_of_it_is_told_with_the_reason(data: bytes) -> None:
    described = describe(data, False)
    assert set(described) == {"bad", "offset"} or described["kind"] == "ping"
    assert json.dumps(described)


def test_the_vendor_shows_what_was_sent_otherwise_than_what_was_received() -> None:
    vendor = Teltonika()
    assert verifyObject(IVendor, vendor)
    data = GOLDEN[0].frame
    assert vendor.describe(b"\x00\x00\x00\x01", Traffic.SENT) == {"acknowledged": 1}
    assert "bad" in vendor.describe(b"\x00\x00\x00\x01", Traffic.RECEIVED)
    assert vendor.describe(data, Traffic.RECEIVED) == describe(data, False)
