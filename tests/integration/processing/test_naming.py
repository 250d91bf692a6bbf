"""Names of attributes, by models in a real Redis."""

from __future__ import annotations

from pathlib import Path

from pytest_twisted import ensureDeferred

from tests.integration.processing.processors import STREAM, Processing, append, lag
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.vendors.installed import installed_vendors


@ensureDeferred
async def test_model_of_a_device_in_redis_selects_the_names_of_attributes(
    redis: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "ours.csv"
    file.write_text("id,name,size,signed,multiplier,unit,models\n239,Key,1,0,1,,FMB920\n")
    naming = installed_vendors()["teltonika"].buildNaming({"FMB920": file})
    assert naming is not None
    redis.client.hset("devices:models", "356307042441013", "FMB920")
    sink = FakeSink()
    processing = Processing(redis, sink, namings={"teltonika": naming})

    async def names_in_next_position() -> list[str]:
        before = len(sink.batches)
        append(redis, 1, start=before)
        await until(lambda: len(sink.batches) > before, "stored")
        return list(sink.batches[-1].positions[0].named or ())

    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    while await names_in_next_position() != ["Key"]:  # until the models have been read
        pass
    await until(lambda: lag(redis) == 0, "acknowledged")
    await processing.stop()
    unnamed = Processing(redis, sink)
    assert await names_in_next_position() == []
    await unnamed.stop()
