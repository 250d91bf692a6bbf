"""Devices are read whole or not at all, and again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from twisted.logger import capturedLogs

from tests.unit.bridge.conftest import Doubled
from tests.unit.bridge.double import BRIDGE_TOKEN, Trouble
from tests.unit.bridge.items import create
from tests.unit.bridge.test_table import now
from tests.unit.fakes import FakeRedis
from tracker.bridge.devices import INTERVAL, READINGS, SETTLES, DeviceSync
from tracker.errors import Unavailable
from tracker.observe.health import Condition
from tracker.runtime.backoff import Backoff

FIRST: Final = 356307042441000


def imei(number: int) -> str:
    return str(FIRST + number)


class FakeCopy(FakeRedis):
    """Redis with the copy of Directus' devices."""

    def __init__(self) -> None:
        write = self._write
        answers = {"SMEMBERS": self._members, "HGETALL": self._pairs, "EVALSHA": self._swap}
        super().__init__(answers={"SADD": write, "HSET": write, **answers})
        self.allowed: set[bytes] = set()
        self.models: dict[bytes, bytes] = {}
        self.swaps = 0
        self._beside: dict[str, list[str]] = {}

    def _members(self, key: str) -> list[bytes]:
        return list(self.allowed)

    def _pairs(self, key: str) -> list[bytes]:
        return [part for pair in self.models.items() for part in pair]

    def _write(self, key: str, *content: str) -> None:
        self._beside.setdefault(key, []).extend(content)

    def _swap(self, *arguments: Any) -> int:
        members, pairs = (self._beside.pop(key, []) for key in arguments[4:6])
        assert arguments[6:] == (len(members), len(pairs) // 2)
        self.allowed = {one.encode() for one in members}
        texts = [one.encode() for one in pairs]
        self.models = dict(zip(texts[::2], texts[1::2], strict=True))
        self.swaps += 1
        return 1


class Syncing:
    """A service that reads devices, its Directus and its Redis; backoffs are 1, 2, 4 … s."""

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
            now(create(self.subject.admin, "devices", {"imei": imei(number), **more}))
        self.double.asked.clear()

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


def test_those_that_are_enabled_with_their_models(syncing: Syncing) -> None:
    syncing.add(1, model="FMB120")
    syncing.add(2)
    syncing.add(3, enabled=False)
    syncing.add(4, enabled=None)
    syncing.double.rows("devices")["odd"] = {"imei": "odd", "model": None, "enabled": True}
    with capturedLogs() as events:
        syncing.sync.startService()
    assert syncing.allowed == {imei(1), imei(2), imei(4)}
    assert syncing.redis.models == {imei(1).encode(): b"FMB120"}
    assert syncing.reports == [None]
    assert any("not 15 digits" in event["log_format"] for event in events)


def test_they_are_read_every_so_often_and_written_when_they_changed(syncing: Syncing) -> None:
    syncing.add(1)
    syncing.sync.startService()
    syncing.advance(INTERVAL)
    assert syncing.redis.swaps == 1
    syncing.add(2)
    syncing.advance(INTERVAL - 1)
    assert syncing.allowed == {imei(1)}
    syncing.advance(1)
    assert syncing.allowed == {imei(1), imei(2)}
    syncing.redis.allowed.clear()  # somebody has flushed it
    syncing.advance(INTERVAL)
    assert syncing.allowed == {imei(1), imei(2)}
    syncing.redis.models[b"stranger"] = b"x"
    syncing.advance(INTERVAL)
    assert syncing.redis.models == {}


def test_an_announcement_is_followed_soon_with_others(syncing: Syncing) -> None:
    syncing.sync.startService()
    syncing.add(1)
    for _ in range(4):
        syncing.sync.announce()
        syncing.advance(SETTLES / 4)
    assert syncing.allowed == {imei(1)}
    assert len(syncing.double.asked) == 3, "read once"
    syncing.advance(INTERVAL - 1)
    assert len(syncing.double.asked) == 3


def test_an_announcement_during_a_reading_leads_to_another(syncing: Syncing) -> None:
    syncing.add(1)
    syncing.double.silent = True
    syncing.sync.startService()
    syncing.sync.announce()
    syncing.double.speak()
    syncing.subject.agent.flush()
    assert syncing.allowed == {imei(1)}
    syncing.add(2)
    syncing.advance(SETTLES)
    assert syncing.allowed == {imei(1), imei(2)}


def test_a_directus_that_is_slow_is_left_alone_in_between(syncing: Syncing) -> None:
    syncing.double.silent = True
    syncing.sync.startService()
    syncing.advance(5)
    syncing.sync.announce()
    syncing.double.speak()
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
def test_none_is_missed_where_answers_are_short(syncing: Syncing, most: int) -> None:
    syncing.add(*range(12))
    syncing.double.tables["devices"].most = most
    syncing.sync.startService()
    assert syncing.allowed == {imei(number) for number in range(12)}
    assert syncing.reports == [None]


def test_answers_of_one_are_told_from_one_device(syncing: Syncing) -> None:
    syncing.double.tables["devices"].most = 1
    syncing.add(1)
    syncing.sync.startService()
    assert syncing.allowed == {imei(1)}
    syncing.add(2)
    syncing.advance(INTERVAL)
    assert syncing.allowed == {imei(1)}
    assert "QUERY_LIMIT_MAX" in str(syncing.reports[-1])


def between(syncing: Syncing, change: Callable[[], None], times: int) -> list[int]:
    """Change the devices after every other answer, so many times; how often it was done."""
    done: list[int] = []

    def answered(number: int) -> None:
        if number % 2 and len(done) < times:
            done.append(number)
            change()

    syncing.double.answered = answered
    return done


def test_one_that_is_removed_hides_no_other(syncing: Syncing) -> None:
    syncing.add(*range(20))
    syncing.double.tables["devices"].most = 5
    gone = iter(range(0, 20, 4))
    done = between(syncing, lambda: _remove(syncing, next(gone)), READINGS - 1)
    syncing.sync.startService()
    assert len(done) == READINGS - 1
    present = set(syncing.double.rows("devices"))
    assert len(present) < 20
    assert present <= syncing.allowed
    assert syncing.reports == [None]


def test_those_that_change_all_the_time_are_not_taken(syncing: Syncing) -> None:
    syncing.add(*range(100, 120))
    syncing.double.tables["devices"].most = 5
    numbers = iter(range(100))
    between(syncing, lambda: _insert(syncing, next(numbers)), 1000)
    syncing.sync.startService()
    assert syncing.allowed == set()
    assert "they change all the time" in str(syncing.reports[-1])


def _remove(syncing: Syncing, number: int) -> None:
    syncing.double.rows("devices").pop(imei(number))


def _insert(syncing: Syncing, number: int) -> None:
    key = imei(99 - number)
    syncing.double.rows("devices")[key] = {"imei": key, "model": None, "enabled": True}


@pytest.mark.parametrize(
    "trouble",
    [
        *(Trouble(500), Trouble(503), Trouble(401), Trouble(403), Trouble(404), Trouble(429)),
        Trouble(200, body=b'{"data": ['),
        Trouble(200, body=b'{"data": [{}]}'),
        Trouble(200, body=b'{"data": [', complete=False),
    ],
    ids=lambda one: f"{one.status}-{one.body}",
)
@pytest.mark.parametrize("after", [0, 1])
def test_what_cannot_be_read_changes_nothing(
    syncing: Syncing, trouble: Trouble, after: int
) -> None:
    syncing.add(1)
    syncing.sync.startService()
    syncing.add(2)
    syncing.double.troubles += [*[None] * after, trouble]
    syncing.advance(INTERVAL)
    syncing.advance(10)  # for an answer that does not end
    if syncing.reports[-1] is not None:
        assert syncing.allowed == {imei(1)}
    assert any(syncing.reports), "told"
    syncing.advance(5)
    assert syncing.allowed == {imei(1), imei(2)}, "tried again soon"
    assert syncing.reports[-1] is None


def test_it_is_tried_again_less_and_less_often(syncing: Syncing) -> None:
    syncing.double.troubles += [Trouble(503)] * 1000
    syncing.sync.startService()
    for seconds in (1, 2, 4, 8):
        syncing.advance(seconds)
    assert len(syncing.double.asked) == 5
    for _ in range(60):
        syncing.advance(10)
    assert len(syncing.double.asked) < 20


def test_it_is_left_alone_as_long_as_it_wants(syncing: Syncing) -> None:
    syncing.double.troubles.append(Trouble(429, headers={"Retry-After": "40"}))
    syncing.sync.startService()
    syncing.advance(40.9)
    assert len(syncing.double.asked) == 1
    syncing.advance(0.1)
    assert syncing.reports[-1] is None


def test_an_announcement_does_not_disturb_one_that_wants_to_be_left_alone(
    syncing: Syncing,
) -> None:
    syncing.add(1)
    syncing.double.troubles.append(
        Trouble(429, "REQUESTS_EXCEEDED", headers={"Retry-After": "100"})
    )
    syncing.sync.startService()
    for _ in range(100):
        syncing.sync.announce()
        syncing.advance(1)
    assert len(syncing.double.asked) == 1
    syncing.advance(2)
    assert syncing.allowed == {imei(1)}


def test_none_at_all_is_a_mistake(syncing: Syncing) -> None:
    syncing.sync.startService()
    assert syncing.reports == [None], "there never was one"
    syncing.add(1)
    syncing.advance(INTERVAL)
    syncing.double.rows("devices").clear()
    syncing.advance(INTERVAL)
    assert syncing.allowed == {imei(1)}
    assert "Directus shows no device" in str(syncing.reports[-1])
    syncing.add(2, enabled=False)
    syncing.advance(INTERVAL)
    assert syncing.allowed == set(), "somebody has disabled them"
    assert syncing.reports[-1] is None


def test_rights_that_are_lost_change_nothing(syncing: Syncing) -> None:
    syncing.add(1)
    syncing.sync.startService()
    del syncing.double.users[BRIDGE_TOKEN]
    syncing.advance(INTERVAL)
    assert "401" in str(syncing.reports[-1])
    assert syncing.allowed == {imei(1)}


def test_a_lost_connection_to_redis(syncing: Syncing) -> None:
    syncing.add(1)
    answers = syncing.redis.answers
    syncing.redis.answers = dict.fromkeys(("HGETALL", "SMEMBERS"), Unavailable("lost"))
    syncing.sync.startService()
    assert "cannot be written" in str(syncing.reports[-1])
    syncing.redis.answers = answers
    syncing.advance(1)
    assert syncing.allowed == {imei(1)}
    assert syncing.reports[-1] is None


def test_its_end_does_not_wait_for_a_directus_that_hangs(syncing: Syncing) -> None:
    syncing.double.silent = True
    syncing.sync.startService()
    assert syncing.double.waiting == 1
    # The fixture ends it.
