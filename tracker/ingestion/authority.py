"""Authorities, which decide which devices are served."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from tracker.errors import Refused, Unavailable
from tracker.imei import has_valid_check_digit, is_imei
from tracker.ingestion.bindings import VendorBindings
from tracker.interfaces import Admission, IDeviceAuthority
from tracker.keys import ALLOWED_DEVICES
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.untrusted import MAX_SHOWN
from tracker.wording import counted

#: Seconds between two readings of the list.
INTERVAL: Final = 30


@implementer(IDeviceAuthority)
class EveryDevice:
    """Serves every device."""

    def admission(self, device_id: str, vendor: str) -> Admission:
        """See IDeviceAuthority."""
        return Admission.SERVED

    def review(self, device_id: str, vendor: str) -> Admission:
        """See IDeviceAuthority."""
        return Admission.SERVED


@implementer(IDeviceAuthority)
@frozen
class CheckedImei:
    """Refuses each IMEI with a wrong check digit; another authority decides on all others.

    Device IDs of another form, such as a MEID, have no such digit.
    """

    authority: IDeviceAuthority

    def admission(self, device_id: str, vendor: str) -> Admission:
        """See IDeviceAuthority."""
        if _is_wrong(device_id):
            return Admission.REFUSED
        return self.authority.admission(device_id, vendor)

    def review(self, device_id: str, vendor: str) -> Admission:
        """See IDeviceAuthority."""
        if _is_wrong(device_id):
            return Admission.REFUSED
        return self.authority.review(device_id, vendor)


def _is_wrong(device_id: str) -> bool:
    return is_imei(device_id) and not has_valid_check_digit(device_id)


@implementer(IDeviceAuthority)
class AllowList(RedisTimer):
    """Serves the devices in the set ``devices:allowed``, of which it keeps a copy.

    The last good copy stays in use while Redis is unavailable, and while the set is empty: an empty
    set is more likely a loss of Redis' data than an intention. Before the first copy, connections
    are closed without a reply, because a refused device might not retry for a long time.

    A device in the hash ``devices:vendors`` is served under that vendor only, also if it is not in
    the set and unknown devices are served.

    :param unknown: decision on a device that is not in the set.
    :param condition: met while a good copy exists.
    :param vendors: names of the installed vendors.
    :param changed: called when a copy has changed.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        unknown: Admission,
        condition: Condition,
        *,
        vendors: Collection[str],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(clock, redis, INTERVAL, self._refresh)
        self.unknown_devices = 0
        """Logins of devices that are not in the set."""
        self._logged_unknown_devices = 0
        self._redis = redis
        self._unknown = unknown
        self._condition = condition
        self._changed = changed
        self._allowed: frozenset[str] | None = None
        self._members = 0  # of the set, when it was last read
        self._bindings = VendorBindings(redis, vendors)

    def admission(self, device_id: str, vendor: str) -> Admission:
        """See IDeviceAuthority."""
        admission = self.review(device_id, vendor)
        if self._allowed is not None and device_id not in self._allowed:
            self.unknown_devices += admission is self._unknown
        return admission

    def review(self, device_id: str, vendor: str) -> Admission:
        """See IDeviceAuthority."""
        if self._allowed is None:
            return Admission.LATER
        if not self._bindings.allow(device_id, vendor):
            return Admission.OTHER_VENDOR
        return Admission.SERVED if device_id in self._allowed else self._unknown

    async def _refresh(self) -> None:
        try:
            members = await self._redis.execute("SMEMBERS", ALLOWED_DEVICES)
            rebound = await self._bindings.refresh()
        except (Refused, Unavailable) as error:
            if self._allowed is None:
                self._condition.fails(f"cannot read the allow-list: {error}")
            else:
                self._log.warn(
                    "allow-list not refreshed: {error}. The last copy with {devices} stays in use",
                    count=len(self._allowed),
                    devices=counted(len(self._allowed), "device"),
                    error=error,
                )
            return
        texts = (member.decode(errors="replace") for member in members if len(member) <= MAX_SHOWN)
        # Members that cannot be device IDs are ignored; a set with only such members counts as
        # empty.
        allowed = frozenset(text for text in texts if text and text.isprintable())
        if len(allowed) < len(members) != self._members:
            self._log.warn(
                "{key} contains {members} that cannot be a device ID; remove them",
                key=ALLOWED_DEVICES,
                count=len(members) - len(allowed),
                members=counted(len(members) - len(allowed), "member"),
            )
        self._members = len(members)
        if not allowed and self._unknown is Admission.REFUSED:
            count = len(self._allowed or ())
            devices = counted(count, "device")
            effect = (
                f"the last copy with {devices} stays in use" if count else "no device can log in"
            )
            self._condition.fails(f"{ALLOWED_DEVICES} is empty: {effect}")
            if rebound:
                self._changed()
            return
        self._condition.met()
        if allowed != self._allowed:
            self._log.info(
                "allow-list updated: {devices} allowed", devices=counted(len(allowed), "device")
            )
            self._allowed = allowed
            rebound = True
        if rebound:
            self._changed()
        if self.unknown_devices > self._logged_unknown_devices:
            self._log.info(
                "{logins} of devices that are not on the allow-list: {decision}",
                logins=counted(self.unknown_devices - self._logged_unknown_devices, "login"),
                decision=self._unknown.value,
            )
            self._logged_unknown_devices = self.unknown_devices
