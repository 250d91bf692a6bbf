"""Descriptions of a device's traffic."""

from __future__ import annotations

import json

import pytest
from zope.interface.verify import verifyObject

from tests.unit.vendors.teltonika.examples import COMMAND, EXAMPLES, as_document
from tests.unit.vendors.teltonika.golden import GOLDEN, LOGIN
from tracker.interfaces import IVendor, Traffic
from tracker.vendors.teltonika.description import describe
from tracker.vendors.teltonika.vendor import Teltonika


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=list(EXAMPLES))
@pytest.mark.parametrize("sent", [False, True])
def test_frame_is_described_like_its_document(data: bytes, sent: bool) -> None:
    assert describe(data, sent) == as_document(data, False)


def test_reply_to_a_login_is_described_only_if_sent() -> None:
    assert describe(b"\x01", True) == {"login": "accepted"}
    assert describe(b"\x00", True) == {"login": "refused"}
    assert "login" not in describe(b"\x01", False)


@pytest.mark.parametrize(
    ("data", "count"),
    [(b"\x00\x00\x00\x00", 0), (b"\x00\x00\x00\x01", 1), (b"\x00\x00\x00\xff", 255)],
)
def test_ack_is_described_with_its_count(data: bytes, count: int) -> None:
    assert describe(data, True) == {"acknowledged": count}
    assert "acknowledged" not in describe(data, False)


def test_command_is_described_with_its_text() -> None:
    assert describe(COMMAND, True)["text"] == as_document(COMMAND, False)["text"]


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00" * 3, b"\xfe" * 20, LOGIN[:-1], b"GET /"])
def test_undecodable_bytes_are_described_with_the_reason(data: bytes) -> None:
    described = describe(data, False)
    assert set(described) == {"bad", "offset"} or described["kind"] == "ping"
    assert json.dumps(described)


def test_vendor_describes_sent_and_received_traffic_differently() -> None:
    vendor = Teltonika()
    assert verifyObject(IVendor, vendor)
    data = GOLDEN[0].frame
    assert vendor.describe(b"\x00\x00\x00\x01", Traffic.SENT) == {"acknowledged": 1}
    assert "bad" in vendor.describe(b"\x00\x00\x00\x01", Traffic.RECEIVED)
    assert vendor.describe(data, Traffic.RECEIVED) == describe(data, False)
