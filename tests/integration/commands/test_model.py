"""Randomized tests of commands on a real Redis: crashes, moves, expiries and second entries.

Two instances, three devices and a janitor run by a clock that the test controls. In every run,
each command gets one final response that agrees with what its device has received, and no device
receives a command twice or after it has expired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from pytest_twisted import ensureDeferred

from tests.integration.commands.model import DEVICES, INSTANCES, World
from tests.servers import RedisServer
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection

_DEVICE: Final = range(len(DEVICES))
_INSTANCE: Final = (None, None, None, *INSTANCES)
#: Action → weight, and values of its arguments. With these weights most commands are written.
ACTIONS: Final[Mapping[str, tuple[int, tuple[Sequence[Any], ...]]]] = {
    "submit": (10, (_DEVICE, (1.0, 30.0, 300.0, 300.0, 300.0), _INSTANCE)),
    "repeat": (2, (range(20), _INSTANCE)),
    "login": (8, (_DEVICE, INSTANCES)),
    "leave": (2, (_DEVICE,)),
    "busy": (4, (_DEVICE, (True, False, False))),
    "answer": (12, (_DEVICE, (False, False, False, True))),
    "advance": (6, ((0.1, 2.0, 2.0, 11.0, 31.0),)),
    "start": (6, (INSTANCES,)),
    "stop": (1, (INSTANCES,)),
    "crash": (1, (INSTANCES, (True, False))),
    "crash_soon": (2, (INSTANCES, range(1, 9))),
    "look_dead": (1, (INSTANCES,)),
    "janitor": (3, ()),
    "expiry": (5, ()),
    "settle": (16, ()),
}
RUNS: Final = 60
ACTIONS_PER_RUN: Final = 100


def schedule(random: Random) -> list[tuple[Any, ...]]:
    """Return the actions of one run."""
    weights = [weight for weight, _ in ACTIONS.values()]
    names = random.choices(list(ACTIONS), weights, k=ACTIONS_PER_RUN)
    return [(name, *(random.choice(choices) for choices in ACTIONS[name][1])) for name in names]


@ensureDeferred
async def test_every_command_ends_once_and_is_written_at_most_once(redis: RedisServer) -> None:
    finals: Counter[str] = Counter()
    for seed in range(RUNS):
        actions = schedule(Random(seed))
        try:
            finals += await run(redis, actions)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}; {actions}") from error
    # Each way in which a command can end occurs often enough to be tested.
    ends = ("responded", "rejected", "expired", "timeout", "disconnected", "in_doubt")
    assert all(finals[end] >= RUNS / 4 for end in ends), finals


async def run(redis: RedisServer, actions: Sequence[tuple[Any, ...]]) -> Counter[str]:
    """Carry out the actions of one run; count the final statuses or reasons of the commands."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    redis.client.flushall()
    connection = RedisConnection(reactor, redis.address, Condition(), reply_timeout=10.0)
    connection.startService()
    await connection.when_connected()
    world = World(redis, connection)
    try:
        for name in INSTANCES:
            await world.do_start(name)
        for number, name in enumerate((*INSTANCES, INSTANCES[0])):
            await world.do_login(number, name)
        for action in actions:
            await world.do(action)
        await world.end()
        return world.check()
    finally:
        for instance in world.instances.values():
            await instance.crash()
        await connection.stopService()
