"""What a drain ends with."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from tracker.admin.operations import _drain
from tracker.control.client import ControlClient


class Instance:
    """One that some devices do not leave."""

    def __init__(self, left: int) -> None:
        self._left = left

    async def info(self) -> dict[str, Any]:
        return {"devices": 5, "instance_id": "eu-1"}

    async def drain(self, seconds: float) -> dict[str, Any]:
        assert seconds == 7
        return {"closed": 5, "left": self._left}


@pytest.mark.parametrize(("left", "status"), [(0, 0), (2, 1)])
def test_devices_that_are_left_make_it_a_failure(
    capsys: pytest.CaptureFixture[str], left: int, status: int
) -> None:
    client = cast(ControlClient, Instance(left))
    drained = Deferred.fromCoroutine(_drain(client, 7, True, "json"))
    assert drained.result == status
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"instance_id": "eu-1", "closed": 5, "left": left}
