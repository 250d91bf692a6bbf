"""Errors of the demo before it starts the stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tracker.errors import RunFailed
from tracker.simulator.demo import Demo


def test_data_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    demo = Demo(file / "data", (), seconds=None)
    with pytest.raises(RunFailed) as raised:
        demo.run(cast("Any", None)).send(None)
    assert str(raised.value) == f"cannot create the folder {file / 'data'}: Not a directory"
