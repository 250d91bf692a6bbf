"""Settings of the vendor, as its options give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracker.config import ConfigError, settings
from tracker.settings import options_of
from tracker.vendors.queclink.settings import QueclinkSettings
from tracker.vendors.queclink.vendor import Queclink


def given(**options: str) -> QueclinkSettings:
    names = {name: default for name, default, _ in options_of(QueclinkSettings)}
    return settings(QueclinkSettings, names | options)


def test_reports_are_acknowledged_and_clocks_run_in_utc_by_default() -> None:
    assert given() == QueclinkSettings(sack=True, zone=0, password_file=None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("+08:00", 28_800), ("-03:30", -12_600), ("+00:00", 0)]
)
def test_zone_is_an_offset_from_utc(text: str, seconds: int) -> None:
    assert given(zone=text).zone == seconds


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("sack", "yes"), ("zone", "8"), ("zone", "+15:00"), ("zone", "+01:60")],
        # No zone is more than 14 hours from UTC.
        *[("zone", "+14:01"), ("zone", "-14:59")],
    ],
)
def test_invalid_setting_is_refused(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{option}: must be "):
        given(**{option: value})


def test_passwords_are_read_from_a_file_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("* s3cret\n")
    made = given(**{"password-file": str(file)})
    assert made.password_file == {"*": "s3cret"}
    assert "s3cret" not in repr(made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("135790246811220", "135790246811220"), ("a1000043d20139", "A1000043D20139")],
)
def test_device_id_is_an_imei_or_a_meid_in_upper_case(text: str, expected: str) -> None:
    assert Queclink().device_id(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1357902468112", "13579024681122X", "A1000043D2013", "G" * 14]
)
def test_other_device_ids_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an IMEI of 15 digits or a MEID"):
        Queclink().device_id(text)
