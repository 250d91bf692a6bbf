"""The admission of devices, with and without an allow-list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeRedis
from tracker.errors import Refused, Unavailable
from tracker.ingestion.authority import INTERVAL, AllowList, CheckedImei, EveryDevice
from tracker.interfaces import Admission, IDeviceAuthority
from tracker.observe.health import Condition

VENDOR = "teltonika"
ALLOWED, ALSO_ALLOWED, UNKNOWN = "356307042441013", "352093081452251", "490154203237518"


NONE_BOUND: Mapping[str, str] = {}


def as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


class Listed:
    """An allow-list, its Redis and what it reported."""

    def __init__(self, unknown: Admission = Admission.REFUSED, connected: bool = True) -> None:
        self.clock = Clock()
        self.redis = FakeRedis(connected=connected)
        self.reports: list[str | None] = []
        self.changes = 0
        self.list = AllowList(
            self.clock,
            self.redis,  # type: ignore[arg-type]
            unknown,
            Condition(self.reports.append),
            vendors=[VENDOR, "other"],
            changed=self._change,
        )
        self.list.startService()

    def _change(self) -> None:
        self.changes += 1

    def reply(self, *members: str | bytes, bound: Mapping[str, str | bytes] = NONE_BOUND) -> None:
        """Reply with the members of the set, and with device → vendor."""
        self.answer("SMEMBERS", "devices:allowed").callback([as_bytes(one) for one in members])
        fields = [as_bytes(text) for pair in bound.items() for text in pair]
        self.answer("HGETALL", "devices:vendors").callback(fields)

    def fail(self, error: Exception) -> None:
        """Fail the read of the set."""
        self.answer("SMEMBERS", "devices:allowed").errback(error)

    def answer(self, *expected: str) -> Deferred[Any]:
        """Return the Deferred of the only command that waits for a reply."""
        ((arguments, answer),) = self.redis.commands
        assert arguments == expected
        self.redis.commands.clear()
        return answer

    def admissions(self) -> list[Admission]:
        return [
            self.list.admission(device_id, VENDOR) for device_id in (ALLOWED, ALSO_ALLOWED, UNKNOWN)
        ]


@pytest.fixture
def listed() -> Listed:
    return Listed()


SERVED, REFUSED, LATER = Admission.SERVED, Admission.REFUSED, Admission.LATER


def test_authorities_provide_the_interface(listed: Listed) -> None:
    for authority in (EveryDevice(), CheckedImei(EveryDevice()), listed.list):
        verifyObject(IDeviceAuthority, authority)


@pytest.mark.parametrize("device_id", [ALLOWED, UNKNOWN, "000000000000000", "123456789012345"])
def test_every_device_is_served_without_an_allow_list(device_id: str) -> None:
    assert EveryDevice().admission(device_id, VENDOR) is SERVED


# Before the first copy.


def test_admission_is_undecided_before_the_first_read_of_the_list(listed: Listed) -> None:
    assert listed.admissions() == [LATER] * 3
    listed.reply(ALLOWED)
    assert listed.admissions() == [SERVED, REFUSED, REFUSED]
    assert listed.reports == [None]


def test_admission_is_undecided_before_redis_is_connected() -> None:
    listed = Listed(connected=False)
    listed.clock.advance(10 * INTERVAL)
    assert listed.redis.commands == []
    assert listed.admissions() == [LATER] * 3
    listed.redis.reconnect()
    listed.reply(ALLOWED)
    assert listed.admissions() == [SERVED, REFUSED, REFUSED]


@pytest.mark.parametrize("error", [Refused("WRONGTYPE not a set"), Unavailable("Lost connection")])
def test_failed_first_read_is_reported_and_retried(listed: Listed, error: Exception) -> None:
    listed.fail(error)
    assert listed.reports == [f"cannot read the allow-list: {error}"]
    assert listed.admissions() == [LATER] * 3
    listed.clock.advance(INTERVAL)
    listed.reply(ALLOWED)
    assert listed.reports[1:] == [None]
    assert listed.admissions() == [SERVED, REFUSED, REFUSED]


# Copies.


def test_empty_allow_list_is_reported_and_not_used(listed: Listed) -> None:
    listed.reply()
    assert listed.admissions() == [LATER] * 3
    listed.clock.advance(INTERVAL)
    listed.reply(ALLOWED)
    listed.clock.advance(INTERVAL)
    listed.reply()
    assert listed.admissions() == [SERVED, REFUSED, REFUSED]
    assert listed.reports == [
        "devices:allowed is empty: no device can log in",
        None,
        "devices:allowed is empty: the last copy with 1 device stays in use",
    ]


def test_empty_allow_list_is_used_if_unknown_devices_are_served() -> None:
    listed = Listed(unknown=SERVED)
    listed.reply()
    assert listed.admissions() == [SERVED] * 3
    assert listed.reports == [None]


def test_reviewed_device_is_not_counted(listed: Listed) -> None:
    assert listed.list.review(ALLOWED, VENDOR) is LATER
    listed.reply(ALLOWED, ALSO_ALLOWED)
    assert listed.list.review(ALLOWED, VENDOR) is SERVED
    listed.clock.advance(INTERVAL)
    listed.reply(ALSO_ALLOWED)
    assert listed.list.review(ALLOWED, VENDOR) is REFUSED
    assert CheckedImei(listed.list).review(ALLOWED, VENDOR) is REFUSED
    assert CheckedImei(EveryDevice()).review(ALLOWED, VENDOR) is SERVED
    assert listed.list.unknown_devices == 0


def test_no_device_is_withdrawn_if_unknown_devices_are_served() -> None:
    listed = Listed(unknown=SERVED)
    listed.reply(ALSO_ALLOWED)
    assert listed.list.review(ALLOWED, VENDOR) is SERVED


def test_only_changes_of_the_allow_list_are_reported(listed: Listed) -> None:
    for members, changes in (((ALLOWED,), 1), ((ALLOWED,), 1), ((ALSO_ALLOWED,), 2)):
        listed.reply(*members)
        assert listed.changes == changes
        listed.clock.advance(INTERVAL)


def test_allow_list_is_read_at_every_interval(listed: Listed) -> None:
    listed.reply(ALLOWED)
    listed.clock.advance(INTERVAL - 0.1)
    assert listed.redis.commands == []
    listed.clock.advance(0.1)
    listed.reply(ALSO_ALLOWED)
    assert listed.admissions() == [REFUSED, SERVED, REFUSED]


def test_allow_list_is_not_read_again_before_the_reply(listed: Listed) -> None:
    listed.clock.advance(INTERVAL)
    listed.clock.advance(INTERVAL)
    assert len(listed.redis.commands) == 1


@pytest.mark.parametrize("error", [Refused("LOADING"), Unavailable("Lost connection")])
def test_last_good_copy_stays_in_use_while_redis_fails(listed: Listed, error: Exception) -> None:
    listed.reply(ALLOWED, ALSO_ALLOWED)
    with capturedLogs() as events:
        for _ in range(3):
            listed.clock.advance(INTERVAL)
            listed.fail(error)
            assert listed.admissions() == [SERVED, SERVED, REFUSED]
    assert listed.reports == [None]
    warnings = [event for event in events if event["log_level"] is LogLevel.warn]
    assert [event["count"] for event in warnings] == [2] * 3
    listed.clock.advance(INTERVAL)
    listed.reply(ALLOWED)
    assert listed.admissions() == [SERVED, REFUSED, REFUSED]


def test_last_good_copy_stays_in_use_while_redis_is_unavailable(listed: Listed) -> None:
    listed.reply(ALLOWED)
    listed.redis.lose()
    listed.clock.pump([INTERVAL] * 5)
    assert listed.admissions() == [SERVED, REFUSED, REFUSED]
    listed.redis.reconnect()
    listed.clock.advance(INTERVAL)
    listed.reply(ALSO_ALLOWED)
    assert listed.admissions() == [REFUSED, SERVED, REFUSED]


def test_members_of_the_allow_list_that_are_not_text_are_ignored(listed: Listed) -> None:
    listed.reply(b"\xff\xfe", ALLOWED.encode())
    assert listed.admissions() == [SERVED, REFUSED, REFUSED]


# Unknown devices.


@pytest.mark.parametrize("unknown", [REFUSED, SERVED])
def test_unknown_devices_are_counted_and_get_the_configured_admission(unknown: Admission) -> None:
    listed = Listed(unknown)
    listed.admissions()
    assert listed.list.unknown_devices == 0  # undecided
    listed.reply(ALLOWED)
    assert listed.admissions() == [SERVED, unknown, unknown]
    assert listed.list.unknown_devices == 2
    assert listed.list.admission(ALLOWED, VENDOR) is SERVED
    assert listed.list.unknown_devices == 2


# Stop.


@pytest.mark.parametrize("copied", [False, True])
def test_stop_of_the_allow_list_leaves_no_timer(listed: Listed, copied: bool) -> None:
    if copied:
        listed.reply(ALLOWED)
    stopped: list[object] = []
    listed.list.stopService().addCallback(stopped.append)
    if not copied:
        assert stopped == []
        listed.reply(ALLOWED)
    assert stopped == [None]
    assert listed.clock.getDelayedCalls() == []


def test_stop_before_the_first_connection_leaves_no_timer() -> None:
    listed = Listed(connected=False)
    stopped: list[object] = []
    listed.list.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert listed.redis.waiting == []
    assert listed.clock.getDelayedCalls() == []


# Check digits.


@pytest.mark.parametrize("imei", [ALLOWED[:14] + "0", "000000000000001", "111111111111111"])
def test_device_with_a_wrong_check_digit_is_refused(imei: str) -> None:
    listed = Listed(SERVED)
    checked = CheckedImei(listed.list)
    assert checked.admission(imei, VENDOR) is REFUSED
    listed.reply(imei)
    assert checked.admission(imei, VENDOR) is REFUSED
    assert listed.list.unknown_devices == 0


def test_next_authority_decides_about_a_right_check_digit(listed: Listed) -> None:
    checked = CheckedImei(listed.list)
    assert checked.admission(ALLOWED, VENDOR) is LATER
    listed.reply(ALLOWED)
    assert checked.admission(ALLOWED, VENDOR) is SERVED
    assert checked.admission(UNKNOWN, VENDOR) is REFUSED
    assert listed.list.unknown_devices == 1


@pytest.mark.parametrize(
    "device_id", ["A10000429B6781", "99000085C0FFEE", "35630704244101", "3563070424410130", "X1"]
)
def test_check_digit_is_expected_of_imeis_only(device_id: str) -> None:
    assert CheckedImei(EveryDevice()).admission(device_id, VENDOR) is SERVED


# Devices that are bound to a vendor.

OTHER_VENDOR = Admission.OTHER_VENDOR


def warnings(events: Sequence[LogEvent]) -> list[LogEvent]:
    return [event for event in events if event["log_level"] is LogLevel.warn]


@pytest.mark.parametrize("unknown", [REFUSED, SERVED])
def test_device_is_served_only_under_the_vendor_to_which_it_is_bound(unknown: Admission) -> None:
    listed = Listed(unknown)
    listed.reply(ALLOWED, ALSO_ALLOWED, bound={ALLOWED: "other", UNKNOWN: "other"})
    assert listed.admissions() == [OTHER_VENDOR, SERVED, OTHER_VENDOR]
    assert listed.list.review(ALLOWED, "other") is SERVED
    assert listed.list.admission(UNKNOWN, "other") is unknown
    assert listed.list.unknown_devices == 1


def test_change_of_a_binding_is_reported(listed: Listed) -> None:
    for bound, changes in (({}, 1), ({ALLOWED: "other"}, 2), ({ALLOWED: "other"}, 2), ({}, 3)):
        listed.reply(ALLOWED, bound=bound)
        assert listed.changes == changes
        listed.clock.advance(INTERVAL)


def test_binding_is_used_while_the_set_is_empty(listed: Listed) -> None:
    listed.reply(ALLOWED)
    listed.clock.advance(INTERVAL)
    listed.reply(bound={ALLOWED: "other"})
    assert listed.list.admission(ALLOWED, VENDOR) is OTHER_VENDOR
    assert listed.changes == 2


@pytest.mark.parametrize("error", ["WRONGTYPE not a hash", "NOPERM no permissions"])
def test_allow_list_is_used_although_the_bindings_cannot_be_read(
    listed: Listed, error: str
) -> None:
    listed.reply(ALLOWED, ALSO_ALLOWED, bound={ALSO_ALLOWED: "other"})
    with capturedLogs() as events:
        for _ in range(3):
            listed.clock.advance(INTERVAL)
            listed.answer("SMEMBERS", "devices:allowed").callback([ALSO_ALLOWED.encode()])
            listed.answer("HGETALL", "devices:vendors").errback(Refused(error))
    assert listed.admissions() == [REFUSED, OTHER_VENDOR, REFUSED]
    assert [event["key"] for event in warnings(events)] == ["devices:vendors"]
    assert set(listed.reports) == {None}


def test_bindings_that_are_not_text_are_tolerated(listed: Listed) -> None:
    long = "x" * 10_000
    listed.reply(
        ALLOWED,
        ALSO_ALLOWED,
        bound={"\x00": b"\xff\xfe", long: VENDOR, "": long, ALLOWED: "", ALSO_ALLOWED: long},
    )
    # An empty name binds nothing; any other name that is not a vendor's refuses the device.
    assert listed.admissions() == [SERVED, OTHER_VENDOR, REFUSED]


def test_vendors_that_are_not_installed_are_logged_once(listed: Listed) -> None:
    with capturedLogs() as events:
        for _ in range(2):
            listed.reply(ALLOWED, bound={ALLOWED: "teltonica", ALSO_ALLOWED: "other"})
            listed.clock.advance(INTERVAL)
        listed.reply(ALLOWED, bound={f"{n}": f"v{n}" for n in range(1000)})
    first, second = warnings(events)
    assert (first["devices"], "teltonica" in first["vendors"]) == ("1 device", True)
    assert (second["devices"], len(second["vendors"]) < 100) == ("1,000 devices", True)
    assert listed.list.admission(ALLOWED, VENDOR) is SERVED
