"""The copy of the devices is complete, regular, and never changed by an incomplete read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from attrs import evolve
from twisted.logger import capturedLogs

from tests.unit import plainvendor
from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.double import BRIDGE_TOKEN, CannedResponse
from tests.unit.bridge.items import create
from tests.unit.bridge.test_table import result_now
from tests.unit.fakes import FakeRedis
from tracker.bridge.devices import ANNOUNCEMENT_DELAY, INTERVAL, MAX_READ_ATTEMPTS, DeviceSync
from tracker.errors import Refused, Unavailable
from tracker.observe.health import Condition
from tracker.runtime.backoff import Backoff

FIRST: Final = 356307042441000


def imei(number: int) -> str:
    return str(FIRST + number)


class FakeCopy(FakeRedis):
    """Redis with the copy of the devices."""

    def __init__(self) -> None:
        write = self._write
        answers = {
            "SMEMBERS": self._members,
            "HGETALL": self._pairs,
            "HLEN": self._length,
            "EVALSHA": self._swap,
        }
        super().__init__(replies={"SADD": write, "HSET": write, **answers})
        self.allowed: set[bytes] = set()
        self.models: dict[bytes, bytes] = {}
        self.vendors: dict[bytes, bytes] = {}
        self.hidden = False
        """True if the user may not use the vendors, as with an ACL file of an earlier version."""
        self.swaps = 0
        self._temporary: dict[str, list[str]] = {}

    def _members(self, key: str) -> list[bytes]:
        return list(self.allowed)

    def _pairs(self, key: str) -> list[bytes]:
        self._check(key)
        pairs = self.models if key == "devices:models" else self.vendors
        return [part for pair in pairs.items() for part in pair]

    def _length(self, key: str) -> int:
        self._check(key)
        return len(self.vendors)

    def _check(self, key: str) -> None:
        if self.hidden and key.startswith("devices:vendors"):
            raise Refused("NOPERM No permissions to access a key")

    def _write(self, key: str, *content: str) -> None:
        self._check(key)
        self._temporary.setdefault(key, []).extend(content)

    def _swap(self, *arguments: Any) -> int:
        keys, counts = arguments[2 : 2 + arguments[1]], arguments[2 + arguments[1] :]
        members, *hashes = (self._temporary.pop(key, []) for key in keys[len(counts) :])
        assert counts == (len(members), *(len(pairs) // 2 for pairs in hashes))
        self.allowed = {one.encode() for one in members}
        self.models, *others = (
            dict(zip(texts[::2], texts[1::2], strict=True))
            for texts in ([one.encode() for one in pairs] for pairs in hashes)
        )
        self.vendors = others[0] if others else {}
        self.swaps += 1
        return 1


class Syncing:
    """A device sync with its Directus and its Redis; retries follow after 1, 2, 4 … seconds."""

    def __init__(self, subject: Doubled) -> None:
        self.subject = subject
        self.double = subject.double
        self.clock = subject.clock
        self.redis = FakeCopy()
        self.reports: list[str | None] = []
        redis: Any = self.redis
        self.sync = DeviceSync(
            self.clock,
            subject.bridge,
            redis,
            condition=Condition(self.reports.append),
            backoff=Backoff(self.clock, first_delay=1.0, random=lambda: 1.0),
        )

    def add(self, *numbers: int, **more: Any) -> None:
        for number in numbers:
            result_now(create(self.subject.admin, "devices", {"imei": imei(number), **more}))
        self.double.requests.clear()

    @property
    def allowed(self) -> set[str]:
        return {member.decode() for member in self.redis.allowed}

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.subject.agent.flush()


@pytest.fixture
def syncing(subject: Doubled) -> Iterator[Syncing]:
    syncing = Syncing(subject)
    yield syncing
    stopping = syncing.sync.stopService()
    subject.agent.flush()
    assert stopping.called
    assert not syncing.clock.getDelayedCalls()


def test_enabled_devices_are_copied_with_their_models(syncing: Syncing) -> None:
    syncing.add(1, model="FMB120")
    syncing.add(2)
    syncing.add(3, enabled=False)
    syncing.add(4, enabled=None)
    odd = {"imei": "odd", "model": None, "vendor": None, "enabled": True}
    syncing.double.rows("devices")["odd"] = odd
    with capturedLogs() as events:
        syncing.sync.startService()
    assert syncing.allowed == {imei(1), imei(2), imei(4)}
    assert syncing.redis.models == {imei(1).encode(): b"FMB120"}
    assert syncing.reports == [None]
    assert [event["count"] for event in events if "ignored" in event["log_format"]] == [1]


def test_device_ids_in_directus_are_normalised(
    syncing: Syncing, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainvendor.install(monkeypatch)
    syncing.double.rows("devices")["00af"] = {
        "imei": "00af",
        "model": None,
        "vendor": None,
        "enabled": True,
    }
    syncing.sync.startService()
    assert syncing.allowed == {"00AF"}


def test_vendor_that_a_device_is_bound_to_is_copied(syncing: Syncing) -> None:
    syncing.add(1, vendor="concox", model="GT06N")
    syncing.add(2, vendor=None)
    syncing.sync.startService()
    assert syncing.allowed == {imei(1), imei(2)}
    assert syncing.redis.vendors == {imei(1).encode(): b"concox"}
    syncing.double.rows("devices")[imei(1)]["vendor"] = None
    syncing.advance(INTERVAL)
    assert syncing.redis.vendors == {}
    assert syncing.redis.swaps == 2


def test_devices_are_copied_if_directus_has_no_field_for_vendors(syncing: Syncing) -> None:
    syncing.add(1, model="FMB120")
    user = syncing.double.users[BRIDGE_TOKEN]
    assert user.permissions is not None
    readable = [name for name in user.permissions["devices", "read"] if name != "vendor"]
    permissions = {**user.permissions, ("devices", "read"): readable}
    syncing.double.users[BRIDGE_TOKEN] = evolve(user, permissions=permissions)
    syncing.sync.startService()
    assert syncing.reports == [None]
    assert syncing.redis.models == {imei(1).encode(): b"FMB120"}
    syncing.redis.vendors = {imei(1).encode(): b"concox"}
    syncing.advance(INTERVAL)
    assert "403" in str(syncing.reports[-1]), "bindings must not be lost with the right"
    assert syncing.redis.vendors == {imei(1).encode(): b"concox"}


def test_devices_without_vendors_are_copied_by_a_user_without_the_right(syncing: Syncing) -> None:
    syncing.redis.hidden = True
    syncing.add(1, model="FMB120")
    syncing.sync.startService()
    assert syncing.reports == [None]
    assert syncing.redis.models == {imei(1).encode(): b"FMB120"}
    syncing.advance(INTERVAL)
    assert syncing.redis.swaps == 1
    syncing.add(2, vendor="concox")
    syncing.advance(INTERVAL)
    assert "NOPERM" in str(syncing.reports[-1])
    assert syncing.allowed == {imei(1)}, "a binding must not be lost"


def test_devices_are_read_regularly_and_written_only_after_a_change(syncing: Syncing) -> None:
    syncing.add(1)
    syncing.sync.startService()
    syncing.advance(INTERVAL)
    assert syncing.redis.swaps == 1
    syncing.add(2)
    syncing.advance(INTERVAL - 1)
    assert syncing.allowed == {imei(1)}
    syncing.advance(1)
    assert syncing.allowed == {imei(1), imei(2)}
    syncing.redis.allowed.clear()  # for example by a flush
    syncing.advance(INTERVAL)
    assert syncing.allowed == {imei(1), imei(2)}
    syncing.redis.models[b"unknown"] = b"x"
    syncing.advance(INTERVAL)
    assert syncing.redis.models == {}


def test_several_announcements_lead_to_one_read(syncing: Syncing) -> None:
    syncing.sync.startService()
    syncing.add(1)
    for _ in range(4):
        syncing.sync.announce()
        syncing.advance(ANNOUNCEMENT_DELAY / 4)
    assert syncing.allowed == {imei(1)}
    assert len(syncing.double.requests) == 3, "devices were read more than once"
    syncing.advance(INTERVAL - 1)
    assert len(syncing.double.requests) == 3


def test_announcement_during_a_read_leads_to_another_read(syncing: Syncing) -> None:
    syncing.add(1)
    syncing.double.silent = True
    syncing.sync.startService()
    syncing.sync.announce()
    syncing.double.resume()
    syncing.subject.agent.flush()
    assert syncing.allowed == {imei(1)}
    syncing.add(2)
    syncing.advance(ANNOUNCEMENT_DELAY)
    assert syncing.allowed == {imei(1), imei(2)}


def test_slow_read_is_followed_by_a_longer_pause(syncing: Syncing) -> None:
    syncing.double.silent = True
    syncing.sync.startService()
    syncing.advance(5)
    syncing.sync.announce()
    syncing.double.resume()
    syncing.subject.agent.flush()
    assert syncing.reports == [None]
    syncing.add(1)
    syncing.advance(19)
    syncing.sync.announce()
    syncing.advance(0.9)
    assert syncing.allowed == set()
    syncing.advance(0.1)
    assert syncing.allowed == {imei(1)}


@pytest.mark.parametrize("most", [2, 3, 5, 11, 12, 13])
def test_all_devices_are_read_when_directus_limits_rows(syncing: Syncing, most: int) -> None:
    syncing.add(*range(12))
    syncing.double.tables["devices"].max_rows = most
    syncing.sync.startService()
    assert syncing.allowed == {imei(number) for number in range(12)}
    assert syncing.reports == [None]


def test_limit_of_one_row_is_reported_if_there_are_more_devices(syncing: Syncing) -> None:
    syncing.double.tables["devices"].max_rows = 1
    syncing.add(1)
    syncing.sync.startService()
    assert syncing.allowed == {imei(1)}
    syncing.add(2)
    syncing.advance(INTERVAL)
    assert syncing.allowed == {imei(1)}
    assert "QUERY_LIMIT_MAX" in str(syncing.reports[-1])


def change_between_responses(syncing: Syncing, change: Callable[[], None], times: int) -> list[int]:
    """Call ``change`` after every other response, and return a list with an item for each call."""
    done: list[int] = []

    def answered(number: int) -> None:
        if number % 2 and len(done) < times:
            done.append(number)
            change()

    syncing.double.answered = answered
    return done


def test_no_device_is_missed_when_rows_are_removed_during_a_read(syncing: Syncing) -> None:
    syncing.add(*range(20))
    syncing.double.tables["devices"].max_rows = 5
    gone = iter(range(0, 20, 4))
    done = change_between_responses(
        syncing, lambda: _remove(syncing, next(gone)), MAX_READ_ATTEMPTS - 1
    )
    syncing.sync.startService()
    assert len(done) == MAX_READ_ATTEMPTS - 1
    present = set(syncing.double.rows("devices"))
    assert len(present) < 20
    assert present <= syncing.allowed
    assert syncing.reports == [None]


def test_incomplete_read_is_discarded_when_rows_change_constantly(syncing: Syncing) -> None:
    syncing.add(*range(100, 120))
    syncing.double.tables["devices"].max_rows = 5
    numbers = iter(range(100))
    change_between_responses(syncing, lambda: _insert(syncing, next(numbers)), 1000)
    syncing.sync.startService()
    assert syncing.allowed == set()
    assert f"{MAX_READ_ATTEMPTS} attempts" in str(syncing.reports[-1])


def _remove(syncing: Syncing, number: int) -> None:
    syncing.double.rows("devices").pop(imei(number))


def _insert(syncing: Syncing, number: int) -> None:
    key = imei(99 - number)
    row = {"imei": key, "model": None, "vendor": None, "enabled": True}
    syncing.double.rows("devices")[key] = row


@pytest.mark.parametrize(
    "canned",
    [
        *(
            CannedResponse(500),
            CannedResponse(503),
            CannedResponse(401),
            CannedResponse(403),
            CannedResponse(404),
            CannedResponse(429),
        ),
        CannedResponse(200, body=b'{"data": ['),
        CannedResponse(200, body=b'{"data": [{}]}'),
        CannedResponse(200, body=b'{"data": [', complete=False),
    ],
    ids=lambda one: f"{one.status}-{one.body}",
)
@pytest.mark.parametrize("after", [0, 1])
def test_failed_read_changes_nothing(syncing: Syncing, canned: CannedResponse, after: int) -> None:
    syncing.add(1)
    syncing.sync.startService()
    syncing.add(2)
    # After the first denial the bridge reads without the field that Directus may not have yet.
    denials = 2 if canned.status == 403 else 1
    syncing.double.canned += [*[None] * after, *[canned] * denials]
    syncing.advance(INTERVAL)
    syncing.advance(10)  # the timeout of a response that does not end
    if syncing.reports[-1] is not None:
        assert syncing.allowed == {imei(1)}
    assert any(syncing.reports), "the failure was not reported"
    syncing.advance(5)
    assert syncing.allowed == {imei(1), imei(2)}, "the read was not retried"
    assert syncing.reports[-1] is None


def test_failed_reads_are_retried_with_increasing_delays(syncing: Syncing) -> None:
    syncing.double.canned += [CannedResponse(503)] * 1000
    syncing.sync.startService()
    for seconds in (1, 2, 4, 8):
        syncing.advance(seconds)
    assert len(syncing.double.requests) == 5
    for _ in range(60):
        syncing.advance(10)
    assert len(syncing.double.requests) < 20


def test_reading_devices_respects_retry_after(syncing: Syncing) -> None:
    syncing.double.canned.append(CannedResponse(429, headers={"Retry-After": "40"}))
    syncing.sync.startService()
    syncing.advance(40.9)
    assert len(syncing.double.requests) == 1
    syncing.advance(0.1)
    assert syncing.reports[-1] is None


def test_announcement_does_not_shorten_retry_after(
    syncing: Syncing,
) -> None:
    syncing.add(1)
    syncing.double.canned.append(
        CannedResponse(429, "REQUESTS_EXCEEDED", headers={"Retry-After": "100"})
    )
    syncing.sync.startService()
    for _ in range(100):
        syncing.sync.announce()
        syncing.advance(1)
    assert len(syncing.double.requests) == 1
    syncing.advance(2)
    assert syncing.allowed == {imei(1)}


def test_empty_collection_does_not_clear_the_copy(syncing: Syncing) -> None:
    syncing.sync.startService()
    assert syncing.reports == [None], "an empty collection was reported before any device existed"
    syncing.add(1)
    syncing.advance(INTERVAL)
    syncing.double.rows("devices").clear()
    syncing.advance(INTERVAL)
    assert syncing.allowed == {imei(1)}
    assert "no devices" in str(syncing.reports[-1])
    syncing.add(2, enabled=False)
    syncing.advance(INTERVAL)
    assert syncing.allowed == set(), "a collection of disabled devices must clear the copy"
    assert syncing.reports[-1] is None


def test_revoked_token_changes_nothing(syncing: Syncing) -> None:
    syncing.add(1)
    syncing.sync.startService()
    del syncing.double.users[BRIDGE_TOKEN]
    syncing.advance(INTERVAL)
    assert "401" in str(syncing.reports[-1])
    assert syncing.allowed == {imei(1)}


def test_copy_is_retried_after_redis_was_down(syncing: Syncing) -> None:
    syncing.add(1)
    answers = syncing.redis.replies
    syncing.redis.replies = dict.fromkeys(("HGETALL", "SMEMBERS"), Unavailable("lost"))
    syncing.sync.startService()
    assert "cannot write devices" in str(syncing.reports[-1])
    syncing.redis.replies = answers
    syncing.advance(1)
    assert syncing.allowed == {imei(1)}
    assert syncing.reports[-1] is None


def test_stop_does_not_wait_for_a_hanging_read_of_devices(syncing: Syncing) -> None:
    syncing.double.silent = True
    syncing.sync.startService()
    assert syncing.double.waiting == 1
    # The fixture stops the service and checks that this takes no time.
