"""Connection slots: the share of one address, and the readiness without free slots."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from contextlib import ExitStack

from tests.system.raw import Ingest, RawDevice
from tests.system.test_hostile import imei, is_served
from tests.waiting import wait_for
from tracker.ingestion.admission import RESERVED_FILES

#: Slots of the process, and the maximum number of slots for one address.
SLOTS, SHARE = 136, 123
OTHER = "127.0.0.2"
RATE = ("--connection-rate", "100000", "--connection-rate-per-address", "100000")


def slots(ingest: Ingest) -> dict[str, int]:
    """Return the details of ``/readyz`` about slots."""
    facts: dict[str, int] = ingest.daemon.readyz()[1]["details"]["connections"]
    return facts


def metric(ingest: Ingest, line: str) -> float:
    """Return the value of the metric whose line in ``/metrics`` begins with ``line``."""
    with urllib.request.urlopen(ingest.daemon.url("/metrics"), timeout=30) as response:
        lines = response.read().decode().splitlines()
    (found,) = (one for one in lines if one.startswith(f"{line} "))
    return float(found.rpartition(" ")[2])


def serves_other(ingest: Ingest, device_id: str) -> bool:
    """Return whether a device with another address is served."""
    with RawDevice(ingest.port, source=OTHER) as device:
        return device.login(device_id) == b"\x01"


def test_one_address_cannot_take_all_slots(serve: Callable[..., Ingest]) -> None:
    ingest = serve(*RATE, files=RESERVED_FILES + SLOTS)
    with ExitStack() as stack:
        crowd = [stack.enter_context(ingest.connect()) for _ in range(200)]
        for number, device in enumerate(crowd):
            served = device.try_login(imei(number))
            assert served is (number < SHARE)
        assert serves_other(ingest, imei(999))
        assert crowd[0].deliver(1)
        status, answer = ingest.daemon.readyz()
        assert (status, answer["reasons"]) == (200, {})
        facts = answer["details"]["connections"]
        assert facts.pop("in_use") >= SHARE  # the other connection may still be open
        assert facts == {"slots": SLOTS, "per_address": SHARE, "addresses_at_their_share": 1}
        rejected = 'tracker_rejections_total{reason="address_share",vendor="teltonika"}'
        assert metric(ingest, rejected) == 200 - SHARE
        assert metric(ingest, "tracker_connection_slots") == SLOTS
        assert metric(ingest, "tracker_addresses_at_their_share") == 1
    assert len(ingest.rejections()) <= 10
    assert f"reached its maximum number of connections ({SHARE})" in ingest.rejections()[0]
    wait_for(lambda: is_served(ingest, imei(1)), "slots free again")


def test_process_without_a_free_slot_is_not_ready(serve: Callable[..., Ingest]) -> None:
    ingest = serve("--connections", "3", "--connections-per-address", "2")
    with ExitStack() as stack:
        for number, source in enumerate(["127.0.0.1", "127.0.0.1", OTHER]):
            assert ingest.daemon.readyz()[0] == 200
            device = stack.enter_context(RawDevice(ingest.port, source=source))
            assert device.login(imei(number)) == b"\x01"
        wait_for(lambda: ingest.daemon.readyz()[0] == 503, "it is not ready")
        assert list(ingest.daemon.readyz()[1]["reasons"]) == ["connections"]
        assert metric(ingest, "tracker_connection_slots_used") == 3


def test_silent_connections_do_not_keep_devices_out(serve: Callable[..., Ingest]) -> None:
    ingest = serve(*RATE, "--connections", "60", "--login-timeout", "600")
    with ExitStack() as stack:
        for number in range(80):  # more than the slots
            source = f"127.0.1.{number % 2 + 1}"
            stack.enter_context(RawDevice(ingest.port, source=source))
        wait_for(lambda: slots(ingest)["in_use"] == 60, "all slots are taken")
        wait_for(lambda: is_served(ingest, imei(1)), "a device is served", timeout=30)
        overdue = 'tracker_rejections_total{reason="no_login",vendor="teltonika"}'
        assert metric(ingest, overdue) >= 1
