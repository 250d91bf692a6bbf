"""The installed vendors, and the device IDs that people give."""

from __future__ import annotations

import re

import pytest

from tests.unit.plainvendor import install
from tracker.command import is_device_id
from tracker.interfaces import IVendor
from tracker.vendors.installed import (
    checked_device_id,
    command_codecs,
    device_id_forms,
    installed_vendors,
)

IDS = (
    *("356307042441013", "1" * 14, "1" * 15, "1" * 16, "20261201034500", "A0000012345678"),
    *("a0000012345678", "g0000012345678", "", "x", "1" * 15 + "\n", " " + "1" * 15, "٣" * 15),
)


def accepts(vendor: IVendor, text: str) -> bool:
    try:
        vendor.device_id(text)
    except ValueError:
        return False
    return True


def test_device_id_of_any_vendor_is_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert checked_device_id("356307042441013") == "356307042441013"
    assert checked_device_id("00aF") == "00AF"


def test_invalid_device_id_is_refused_with_the_forms_of_all_vendors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vendor = install(monkeypatch)
    vendor.device_id_form = "an IMEI of 15 digits or a tag of 4 hex digits"
    with pytest.raises(ValueError, match=r"^must be .*") as caught:
        checked_device_id("12345")
    forms = str(caught.value).removeprefix("must be ").split(" or ")
    assert {"an IMEI of 15 digits", "a tag of 4 hex digits"} <= set(forms)
    assert len(forms) == len(set(forms))
    assert device_id_forms({"acme": vendor}) == vendor.device_id_form


@pytest.mark.parametrize("name", installed_vendors())
@pytest.mark.parametrize("text", IDS)
def test_pattern_of_device_ids_is_what_the_vendor_accepts(name: str, text: str) -> None:
    vendor = installed_vendors()[name]
    assert accepts(vendor, text) == bool(re.fullmatch(vendor.device_id_pattern, text))
    if accepts(vendor, text):
        assert is_device_id(vendor.device_id(text))


def test_each_codec_of_commands_has_its_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch).command_codecs = ("12", "plain")
    codecs = command_codecs(installed_vendors())
    assert {"teltonika", "acme"} <= set(codecs["12"])
    assert codecs["plain"] == ["acme"]
