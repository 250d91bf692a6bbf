"""Random lives of commands, on a real server: crashes, moves, expiries, duplicates.

Two instances, three devices and a janitor live by a clock that the test turns; Redis is real.
Whatever happens, every command ends in one final response that fits what its device has seen,
and no device is told anything twice, or after its time.
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

#: What happens, with what, and how often beside the others: most commands come to be written.
_DEVICE: Final = range(len(DEVICES))
_PLACE: Final = (None, None, None, *INSTANCES)
STEPS: Final[Mapping[str, tuple[int, tuple[Sequence[Any], ...]]]] = {
    "submit": (10, (_DEVICE, (1.0, 30.0, 300.0, 300.0, 300.0), _PLACE)),
    "repeat": (2, (range(20), _PLACE)),
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
    "settle": (16, ()),
}
LIVES: Final = 60
LENGTH: Final = 100


def schedule(random: Random) -> list[tuple[Any, ...]]:
    """The steps of one life."""
    names = random.choices(list(STEPS), [weight for weight, _ in STEPS.values()], k=LENGTH)
    return [(name, *(random.choice(choices) for choices in STEPS[name][1])) for name in names]


@ensureDeferred
async def test_every_command_ends_once_and_is_written_once_at_most(redis: RedisServer) -> None:
    finals: Counter[str] = Counter()
    for seed in range(LIVES):
        steps = schedule(Random(seed))
        try:
            finals += await live(redis, steps)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}; {steps}") from error
    # Nothing is learnt from lives in which nothing happens.
    ends = ("responded", "rejected", "expired", "timeout", "disconnected", "in_doubt")
    assert all(finals[end] >= LIVES / 4 for end in ends), finals


async def live(redis: RedisServer, steps: Sequence[tuple[Any, ...]]) -> Counter[str]:
    """Live one life; how its commands have ended."""
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
        for step in steps:
            await world.do(step)
        await world.end()
        return world.check()
    finally:
        for instance in world.instances.values():
            await instance.crash()
        await connection.stopService()
