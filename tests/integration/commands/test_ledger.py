"""Each step with a command, in each state that it can be found in, on a real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    WAITING,
    clock_of,
    connect,
    found,
    given,
    is_empty,
    live,
    outbound,
    put,
    raw,
    read,
    said,
    sent,
    snapshot,
    waiting,
)
from tests.integration.conftest import Connected
from tests.integration.intercepted import Intercepted
from tests.servers import RedisServer
from tests.system.commands import RESPONSES, fields, responses
from tracker.command import EXPIRED, Command, Outcome, Reason, Status
from tracker.commands.ledger import CommandLedger, Step
from tracker.errors import Refused
from tracker.log.entries import Delivered

DAY_MS: Final = 86_400_000
STREAM: Final = outbound("one")
ANSWERED: Final = Outcome(Status.RESPONDED, response="INI:2026/1/1")
DOUBT: Final = ("c1", "failed", "in_doubt")
RESPONDED: Final = ("c1", "responded", "")

Act = Callable[[CommandLedger, Delivered, Command], Awaitable[Any]]


@pytest.fixture
def clock(redis: RedisServer) -> Clock:
    return clock_of(redis)


@pytest.fixture
def ledger(connected: Connected, clock: Clock) -> CommandLedger:
    return CommandLedger(clock, connected.connection, "one")


def fate(redis: RedisServer, command_id: str = "c1") -> str | None:
    value: bytes | None = redis.client.get(sent(command_id))
    return None if value is None else value.decode()


def remembered(redis: RedisServer, clock: Clock, command: Command) -> bool:
    """Whether its fate is, until a day after nobody could write it any more."""
    left = redis.client.pttl(sent(command.command_id))
    until_expiry = command.expires_at - clock.seconds() * 1000
    return bool(left > DAY_MS - 20_000 and left > until_expiry + DAY_MS - 20_000)


# What may be in the key, by what it means for the entry at hand.
STATES: Final = (
    *("open", "sent", "delivered", "done", "other", "vanished"),
    *("foreign", "empty", "odd", "of another type"),
)
OURS: Final = ("sent", "delivered")
DOUBTFUL: Final = ("vanished", "foreign", "empty", "odd", "of another type")


def arrange(redis: RedisServer, state: str, entry: Delivered) -> None:
    key = sent("c1")
    match state:
        case "sent" | "delivered":
            redis.client.set(key, f"{state} {entry.stream} {entry.id}", px=DAY_MS)
        case "done":
            redis.client.set(key, "done responded 1-1", px=DAY_MS)
        case "other":
            second = put(redis, outbound("two"), fields("c1", DEVICE))
            redis.client.set(key, f"sent {second.stream} {second.id}", px=DAY_MS)
        case "vanished":
            redis.client.set(key, f"sent {outbound('two')} 1-1", px=DAY_MS)
        case "foreign":
            redis.client.set(key, "1")
        case "empty":
            redis.client.set(key, "")
        case "odd":
            redis.client.set(key, "sent nowhere nothing")
        case "of another type":
            redis.client.hset(key, "a", "b")


async def claim(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    return await ledger.claim(entry, command)


async def recover(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    return await ledger.recover(entry, command)


async def finish_unwritten(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    return await ledger.finish(entry, command, EXPIRED)


async def finish_written(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    return await ledger.finish(entry, command, ANSWERED, written=True)


async def refuse(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    outcome = Outcome.failed(Reason.MALFORMED, "no such thing")
    return await ledger.refuse(entry, command.command_id, command.device_id, outcome)


async def offer(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    return await ledger.offer(entry, command, waits=True)


async def offer_unwritten(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    return await ledger.offer(entry, command, waits=True, unwritten=True)


ACTS: Final = (
    *(claim, recover, finish_unwritten, finish_written),
    *(refuse, offer, offer_unwritten),
)

EXPECTED: Final[dict[Act, tuple[Step, tuple[str, str, str] | None]]] = {
    recover: (Step.OPEN, None),
    finish_unwritten: (Step.FINISHED, ("c1", "expired", "")),
    finish_written: (Step.FINISHED, RESPONDED),
    refuse: (Step.FINISHED, ("c1", "failed", "malformed")),
    claim: (Step.WON, None),
    offer: (Step.WAITS, None),
    offer_unwritten: (Step.WAITS, None),
}
"""Where nobody has begun: the step, and the response."""


def expected(act: Act, state: str, here: bool) -> tuple[Step, tuple[str, str, str] | None]:
    """What a step comes to, and which response it makes."""
    if state in OURS:
        # Whoever has claimed it brings it to its end, whatever has become of the entry.
        if act is recover or act is offer or (act is claim and state == "delivered"):
            return Step.OVER, DOUBT
        if act is offer_unwritten and not here:
            return Step.GONE, None
        return EXPECTED[act]
    if not here:
        if act is finish_written and state == "open":
            return EXPECTED[act]
        return Step.GONE, None
    if state == "open":
        return EXPECTED[act]
    return Step.OVER, DOUBT if state in DOUBTFUL else None


@ensureDeferred
@pytest.mark.parametrize("here", [True, False], ids=["there", "gone"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("act", ACTS)
async def test_each_step_in_each_state(
    act: Act, state: str, here: bool, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    arrange(redis, state, entry)
    if not here:
        redis.client.xack(STREAM, "ingest", entry.id)
        redis.client.xdel(STREAM, entry.id)
    step, response = expected(act, state, here)
    assert await act(ledger, entry, command) is step
    assert said(redis) == ([] if response is None else [response])
    if step in (Step.FINISHED, Step.OVER, Step.WAITS):
        assert is_empty(redis, STREAM)
    if response is not None:
        (last,) = redis.client.xrange(RESPONSES)
        assert fate(redis) == f"done {response[1]} {last[0].decode()}"
    if step is Step.WAITS:
        assert fate(redis) is None
        assert raw(redis, waiting()) == [entry.content]
    # However often it is asked for again, nothing more comes of it.
    before = snapshot(redis)
    again = await act(ledger, entry, command)
    assert again is (step if step in (Step.WON, Step.OPEN) else Step.GONE)
    assert snapshot(redis) == before
    # What is counted is what was said.
    assert ledger.responses == ({} if response is None else {response[1:]: 1})


@ensureDeferred
@pytest.mark.parametrize("expires_in", [60, 30 * 86_400])
async def test_a_claim_says_who_has_it_and_outlives_the_command(
    expires_in: float, ledger: CommandLedger, redis: RedisServer, clock: Clock
) -> None:
    entry, command = given(redis, expires_in=expires_in)
    assert await ledger.claim(entry, command) is Step.WON
    assert fate(redis) == f"sent {STREAM} {entry.id}"
    assert remembered(redis, clock, command)
    assert await ledger.claim(entry, command) is Step.WON
    assert said(redis) == []
    await ledger.delivered(entry, command)
    assert fate(redis) == f"delivered {STREAM} {entry.id}"
    assert remembered(redis, clock, command)
    assert ledger.responses == {("delivered", ""): 1}
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Step.FINISHED
    assert remembered(redis, clock, command)


@ensureDeferred
async def test_what_has_expired_long_ago_is_remembered_for_a_day(
    ledger: CommandLedger, redis: RedisServer, clock: Clock
) -> None:
    entry, command = given(redis, expires_in=-7 * 86_400)
    assert await ledger.finish(entry, command, EXPIRED) is Step.FINISHED
    assert redis.client.pttl(sent("c1")) > DAY_MS - 20_000


@ensureDeferred
async def test_two_entries_of_one_command_are_claimed_once(
    ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    first, command = given(redis)
    second, _ = given(redis)
    elsewhere, _ = given(redis, instance_id="two")
    two = CommandLedger(clock, connected.connection, "two")
    assert await ledger.claim(second, command) is Step.WON
    assert await ledger.claim(first, command) is Step.OVER
    assert await two.claim(elsewhere, command) is Step.OVER
    assert is_empty(redis, outbound("two"))
    assert raw(redis, STREAM) == [second.content]
    assert said(redis) == []
    await ledger.finish(second, command, ANSWERED, written=True)
    third, _ = given(redis)
    assert await ledger.claim(third, command) is Step.OVER
    assert said(redis) == [RESPONDED]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("lost", ["the entry", "the stream"])
async def test_a_second_entry_whose_first_has_vanished_is_in_doubt(
    lost: str, ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    first, command = given(redis, instance_id="two")
    two = CommandLedger(clock, connected.connection, "two")
    assert await two.claim(first, command) is Step.WON
    if lost == "the entry":
        redis.client.xdel(first.stream, first.id)
    else:
        redis.client.delete(first.stream)
    second, _ = given(redis)
    assert await ledger.claim(second, command) is Step.OVER
    assert said(redis) == [DOUBT]
    # The other instance learns of it, and adds nothing.
    assert await two.finish(first, command, ANSWERED, written=True) is Step.GONE
    assert said(redis) == [DOUBT]


@ensureDeferred
async def test_it_is_said_once_that_a_command_was_delivered(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    for _ in range(3):
        await ledger.delivered(entry, command)
    assert said(redis) == [("c1", "delivered", "")]
    for _ in range(3):
        await ledger.finish(entry, command, ANSWERED, written=True)
        await ledger.delivered(entry, command)
    assert said(redis) == [("c1", "delivered", ""), RESPONDED]
    delivered, responded = responses(redis)["c1"]
    assert responded["response"] == "INI:2026/1/1"
    assert responded["instance_id"] == delivered["instance_id"] == "one"
    assert responded["device_id"] == DEVICE
    assert list(responded) == [
        *("command_id", "device_id", "instance_id", "status", "response", "reason", "at"),
    ]


@ensureDeferred
@pytest.mark.parametrize("state", [state for state in STATES if state != "sent"])
async def test_nothing_is_said_of_what_was_not_won(
    state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    arrange(redis, state, entry)
    before = snapshot(redis)
    await ledger.delivered(entry, command)
    assert snapshot(redis) == before


@ensureDeferred
async def test_what_was_written_and_flushed_gets_its_response(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    redis.client.flushall()
    await ledger.delivered(entry, command)
    assert said(redis) == []
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Step.FINISHED
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Step.GONE
    assert said(redis) == [RESPONDED]
    # Whoever has sent it again learns that it is over.
    again, _ = given(redis)
    assert await ledger.claim(again, command) is Step.OVER


@ensureDeferred
async def test_what_was_flushed_before_it_was_written_is_gone(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    redis.client.flushall()
    assert await ledger.claim(entry, command) is Step.GONE
    assert await ledger.finish(entry, command, EXPIRED) is Step.GONE
    assert await ledger.offer(entry, command, waits=True) is Step.GONE
    assert redis.client.keys() == []


@ensureDeferred
@pytest.mark.parametrize(
    ("command_id", "device_id"), [("c1", DEVICE), ("c1", ""), ("", DEVICE), ("", "")]
)
async def test_what_is_no_command_is_refused_once(
    command_id: str, device_id: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry = put(redis, STREAM, {"payload": "getinfo"})
    read(redis, STREAM)
    outcome = Outcome.failed(Reason.MALFORMED, "command_id: must be …")
    assert await ledger.refuse(entry, command_id, device_id, outcome) is Step.FINISHED
    assert await ledger.refuse(entry, command_id, device_id, outcome) is Step.GONE
    assert is_empty(redis, STREAM)
    assert set(redis.client.keys("commands:sent:*")) == (
        {sent(command_id).encode()} if command_id else set()
    )
    ((response,),) = responses(redis).values()
    assert (response["command_id"], response["device_id"]) == (command_id, device_id)
    assert (response["reason"], response["response"]) == ("malformed", "command_id: must be …")
    # Another such entry has a response of its own only if nobody can tell them apart.
    second = put(redis, STREAM, {"payload": "getinfo"})
    step = await ledger.refuse(second, command_id, device_id, outcome)
    assert step is (Step.OVER if command_id else Step.FINISHED)
    assert is_empty(redis, STREAM)


ODD_FIELDS: Final = [
    *(b"colour", b"\x00\xff", b"command_id", b"c1", b"device_id", DEVICE.encode()),
    *(b"payload", b"first", b"payload", "zweite \N{SNOWMAN}".encode(), b"", b""),
    *(b"expires_at", b"2199-01-01T00:00:00Z", b"codec", b"14"),
]


@ensureDeferred
async def test_a_command_moves_with_all_its_fields(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one", "two")
    connect(redis, "two", DEVICE)
    entry_id = redis.client.execute_command("XADD", STREAM, "*", *ODD_FIELDS).decode()
    read(redis, STREAM)
    entry = found(redis, STREAM, entry_id)
    command = Command.from_entry(entry.content or ())
    assert await ledger.offer(entry, command, waits=True) is Step.MOVED
    assert await ledger.offer(entry, command, waits=True) is Step.GONE
    assert is_empty(redis, STREAM)
    assert raw(redis, outbound("two")) == [ODD_FIELDS]
    assert said(redis) == []
    assert fate(redis) is None


@ensureDeferred
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("owner", ["nobody", "dead", "one"])
async def test_a_command_whose_device_is_nowhere_waits_or_fails(
    owner: str, waits: bool, ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one")
    if owner != "nobody":
        connect(redis, owner, DEVICE)
    entry, command = given(redis)
    step = await ledger.offer(entry, command, waits)
    assert is_empty(redis, STREAM)
    assert not redis.client.exists(outbound("dead"))
    if waits:
        assert step is Step.WAITS
        assert raw(redis, waiting()) == [entry.content]
        assert redis.client.smembers(WAITING) == [DEVICE.encode()]
        assert said(redis) == []
    else:
        assert step is Step.FINISHED
        assert said(redis) == [("c1", "failed", "offline")]
        assert not redis.client.exists(waiting(), WAITING)
    assert await ledger.offer(entry, command, waits) is Step.GONE


@ensureDeferred
@pytest.mark.parametrize("owner", ["nobody", "two"])
async def test_a_claim_is_given_back_with_the_command(
    owner: str, ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    live(redis, "one", "two")
    if owner == "two":
        connect(redis, "two", DEVICE)
    entry, command = given(redis)
    await ledger.claim(entry, command)
    step = await ledger.offer(entry, command, waits=True, unwritten=True)
    assert step is (Step.MOVED if owner == "two" else Step.WAITS)
    assert fate(redis) is None
    assert is_empty(redis, STREAM)
    # Asked for again when the next one has claimed it, which is nothing to this one.
    if owner == "two":
        (moved,) = read(redis, outbound("two"))
        two = CommandLedger(clock, connected.connection, "two")
        assert await two.claim(moved, command) is Step.WON
        assert await ledger.offer(entry, command, waits=True, unwritten=True) is Step.GONE
        assert fate(redis) == f"sent {outbound('two')} {moved.id}"


@ensureDeferred
async def test_a_claim_that_was_given_back_fails_where_nobody_waits(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    step = await ledger.offer(entry, command, waits=False, unwritten=True)
    assert step is Step.FINISHED
    assert said(redis) == [("c1", "failed", "offline")]
    assert (fate(redis) or "").startswith("done failed ")


@ensureDeferred
async def test_a_new_command_goes_where_its_device_is(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one", "two")
    connect(redis, "two", DEVICE)
    _, command = given(redis)
    redis.client.delete(STREAM)
    assert await ledger.submit(command) == (Step.MOVED, "two")
    ((*_, moved),) = [raw(redis, outbound("two"))]
    assert Command.from_entry(moved) == command
    # Its own instance is as good as any other.
    connect(redis, "one", DEVICE)
    assert await ledger.submit(command) == (Step.MOVED, "one")
    assert Command.from_entry(raw(redis, STREAM)[0]) == command
    assert said(redis) == []
    assert set(redis.client.keys("commands:*")) == {STREAM.encode(), outbound("two").encode()}


@ensureDeferred
@pytest.mark.parametrize("owner", ["nobody", "dead"])
async def test_a_new_command_whose_device_is_nowhere(
    owner: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    if owner == "dead":
        connect(redis, "dead", DEVICE)
    command = Command.from_entry(
        [part.encode() for pair in fields("c1", DEVICE).items() for part in pair]
    )
    assert await ledger.submit(command) == (Step.WAITS, "")
    assert Command.from_entry(raw(redis, waiting())[0]) == command
    assert redis.client.smembers(WAITING) == [DEVICE.encode()]
    assert said(redis) == []
    assert await ledger.submit(command, waits=False) == (Step.FINISHED, "")
    assert said(redis) == [("c1", "failed", "offline")]
    assert await ledger.submit(command, waits=False) == (Step.KNOWN, "")
    assert await ledger.submit(command) == (Step.KNOWN, "")
    assert said(redis) == [("c1", "failed", "offline")]
    assert redis.client.xlen(waiting()) == 1


@ensureDeferred
@pytest.mark.parametrize("state", [state for state in STATES if state != "open"])
async def test_a_command_that_was_begun_with_is_not_new(
    state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one")
    connect(redis, "one", DEVICE)
    entry, command = given(redis)
    arrange(redis, state, entry)
    before = snapshot(redis)
    assert await ledger.submit(command) == (Step.KNOWN, "")
    assert snapshot(redis) == before


@ensureDeferred
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("act", ACTS)
async def test_an_instance_that_lives_after_all_keeps_what_it_has(
    act: Act, state: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    entry, command = given(redis)
    arrange(redis, state, entry)
    live(redis, "one")
    before = snapshot(redis)
    taking_over = CommandLedger(clock, connected.connection, "janitor", dead="one")
    assert await act(taking_over, entry, command) is Step.LIVES
    assert snapshot(redis) == before
    redis.client.delete("instance:heartbeat:one")
    assert await act(taking_over, entry, command) is not Step.LIVES


async def delivered(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    await ledger.delivered(entry, command)
    return Step.SAID


async def submit(ledger: CommandLedger, entry: Delivered, command: Command) -> Step:
    step, _ = await ledger.submit(command)
    return step


@ensureDeferred
@pytest.mark.parametrize(
    ("act", "state"),
    [
        (claim, "open"),
        (claim, "vanished"),
        (recover, "sent"),
        (delivered, "sent"),
        (finish_unwritten, "open"),
        (finish_unwritten, "sent"),
        (finish_written, "delivered"),
        (refuse, "open"),
        (offer, "open"),
        (offer, "sent"),
        (submit, "open"),
    ],
)
@pytest.mark.parametrize("owner", ["two", "nobody"])
async def test_out_of_memory_a_step_is_refused_as_a_whole(
    owner: str, act: Act, state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one", "two")
    if owner == "two":
        connect(redis, "two", DEVICE)
    entry, command = given(redis)
    arrange(redis, state, entry)
    before = snapshot(redis)
    redis.client.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="OOM"):
        await act(ledger, entry, command)
    assert snapshot(redis) == before
    redis.client.config_set("maxmemory", 0)
    step = await act(ledger, entry, command)
    assert step in {Step.WON, Step.OVER, Step.SAID, Step.FINISHED, Step.MOVED, Step.WAITS}
    assert snapshot(redis) != before


@ensureDeferred
async def test_out_of_memory_a_claim_is_given_back_whole_or_not_at_all(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    before = snapshot(redis)
    redis.client.config_set("maxmemory", 1)
    try:
        step = await ledger.offer(entry, command, waits=True, unwritten=True)
    except Refused:
        assert snapshot(redis) == before
    else:
        assert step is Step.WAITS
        assert fate(redis) is None
        assert raw(redis, waiting()) == [entry.content]
        assert is_empty(redis, STREAM)


@ensureDeferred
async def test_out_of_memory_duplicates_still_go(ledger: CommandLedger, redis: RedisServer) -> None:
    entry, command = given(redis)
    arrange(redis, "done", entry)
    redis.client.config_set("maxmemory", 1)
    assert await ledger.claim(entry, command) is Step.OVER
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("before", ["XACK", "XDEL"])
async def test_a_second_entry_that_is_half_dropped_is_found_again(
    before: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    entry, _ = given(redis)

    def refuse(command: str, *_: Any) -> None:
        if command == before:
            raise Refused("ERR not now")

    halting: Any = Intercepted(connected.connection, refuse)
    with pytest.raises(Refused):
        await CommandLedger(clock, halting, "one").drop(entry)
    # What this consumer has not finished is all that it reads again.
    pending = redis.client.xpending_range(STREAM, "ingest", "-", "+", 10)
    assert [one["message_id"].decode() for one in pending] == [entry.id]
    await CommandLedger(clock, connected.connection, "one").drop(entry)
    assert is_empty(redis, STREAM)
