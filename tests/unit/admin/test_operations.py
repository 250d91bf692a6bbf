"""The exit code of a drain."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from tracker.admin.operations import _drain
from tracker.control.client import ControlClient


class DrainedInstance:
    """A client of an instance at which some devices stay connected."""

    def __init__(self, left: int) -> None:
        self._left = left

    async def info(self) -> dict[str, Any]:
        return {"devices": 5, "instance_id": "eu-1"}

    async def drain(self, seconds: float) -> dict[str, Any]:
        assert seconds == 7
        return {"closed": 5, "left": self._left}


@pytest.mark.parametrize(("left", "code"), [(0, 0), (2, 1)])
def test_drain_fails_if_devices_stay_connected(
    capsys: pytest.CaptureFixture[str], left: int, code: int
) -> None:
    client = cast(ControlClient, DrainedInstance(left))
    drained = Deferred.fromCoroutine(_drain(client, 7, True, "json"))
    assert drained.result == code
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"instance_id": "eu-1", "closed": 5, "left": left}
