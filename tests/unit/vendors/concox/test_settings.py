"""Settings of the vendor."""

from __future__ import annotations

import pytest

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.concox.golden import LOGIN, POSITION_12, ZONED_LOGIN
from tests.unit.vendors.talk import Talk
from tracker.limits import Limits
from tracker.settings import options_of
from tracker.vendors.concox.settings import ConcoxSettings, read_zone
from tracker.vendors.concox.vendor import Concox


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("login", None), ("+00:00", 0), ("+08:00", 480), ("-12:45", -765), ("+14:00", 840)],
)
def test_zone_is_read(text: str, minutes: int | None) -> None:
    assert ConcoxSettings(read_zone(text)).zone == minutes


@pytest.mark.parametrize("text", ["", "8", "+8:00", "+08:60", "+14:01", "-23:00"])
def test_other_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a time zone .*; or login$"):
        read_zone(text)


def test_zone_is_an_option_with_the_zone_of_the_login_as_default() -> None:
    ((name, shown, _),) = options_of(ConcoxSettings)
    assert (name, shown) == ("zone", "login")


@pytest.mark.parametrize(
    ("zone", "login", "time"),
    [
        (None, LOGIN.data, "2011-08-29T17:46:16.000Z"),
        (None, ZONED_LOGIN.data, "2011-08-29T09:46:16.000Z"),
        (-60, LOGIN.data, "2011-08-29T18:46:16.000Z"),
        (-60, ZONED_LOGIN.data, "2011-08-29T18:46:16.000Z"),
    ],
)
def test_zone_is_that_of_the_option_or_of_the_login(
    zone: int | None, login: bytes, time: str
) -> None:
    settings = ConcoxSettings(zone)

    def build(gateway: FakeGateway, limits: Limits, clock: object) -> object:
        return Concox().buildFactory(gateway, limits, clock, settings)  # type: ignore[arg-type]

    talk = Talk(build)  # type: ignore[arg-type]
    talk.send(login + POSITION_12.data)
    assert talk.gateway.published[0][0][0].ts == time
