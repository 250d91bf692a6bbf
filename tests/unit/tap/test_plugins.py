"""Plugins that twistd and the roles find."""

from __future__ import annotations

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from zope.interface.verify import verifyObject

from tracker.interfaces import IVendor
from tracker.tap import Options
from tracker.vendors.installed import installed_vendors


def test_twistd_finds_the_service_maker() -> None:
    makers = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "tracker"]
    assert len(makers) == 1
    assert makers[0].options is Options


def test_teltonika_is_an_installed_vendor() -> None:
    vendor = installed_vendors()["teltonika"]
    verifyObject(IVendor, vendor)
