"""The devices that are bound to one vendor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from twisted.logger import Logger

from tracker.errors import Refused
from tracker.keys import DEVICE_VENDORS
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping
from tracker.untrusted import MAX_SHOWN, shown
from tracker.wording import counted

#: Maximum number of unknown vendors that are named in one log line, and remembered in all.
_MAX_NAMED: Final = 5
_MAX_REPORTED: Final = 1000


class VendorBindings:
    """A copy of the hash ``devices:vendors``, which maps devices to their vendors.

    The last copy stays in use if the hash cannot be read.

    :param vendors: names of the installed vendors.
    """

    _log = Logger()

    def __init__(self, redis: RedisConnection, vendors: Collection[str]) -> None:
        self._redis = redis
        self._vendors = frozenset(vendors)
        self._bound: Mapping[str, str] = {}
        self._reported: set[str] = set()
        self._error = ""

    def allow(self, device_id: str, vendor: str) -> bool:
        """Return False if a device is bound to another vendor than this one."""
        return self._bound.get(device_id, vendor) == vendor

    async def refresh(self) -> bool:
        """Read the hash; return True if the copy has changed.

        :raises Unavailable: if Redis is unavailable.
        """
        try:
            fields = await self._redis.execute("HGETALL", DEVICE_VENDORS)
        except Refused as error:
            # The key has a wrong type, or the rights of an earlier version do not include it.
            if str(error) != self._error:
                self._error = str(error)
                self._log.warn(
                    "cannot read {key}: {error}. The last copy with {devices} stays in use",
                    key=DEVICE_VENDORS,
                    error=error,
                    devices=counted(len(self._bound), "device"),
                )
            return False
        self._error = ""
        names: dict[str, str] = {}  # one copy of each
        bound: dict[str, str] = {}
        # A longer text is not a device ID; longer names stay different from those of all vendors.
        for device_id, name in mapping([field[: MAX_SHOWN + 1] for field in fields]).items():
            vendor = name.decode(errors="replace")
            if vendor and len(device_id) <= MAX_SHOWN:
                bound[device_id.decode(errors="replace")] = names.setdefault(vendor, vendor)
        self._report_unknown(bound)
        changed, self._bound = bound != self._bound, bound
        if changed:
            self._log.info("vendors of devices updated: {devices} bound", devices=_devices(bound))
        return changed

    def _report_unknown(self, bound: Mapping[str, str]) -> None:
        """Log vendors that are not installed, each once."""
        known = self._vendors | self._reported
        unknown = Counter(vendor for vendor in bound.values() if vendor not in known)
        if not unknown or len(self._reported) >= _MAX_REPORTED:
            return
        self._reported.update(unknown)
        named = ", ".join(shown(vendor) for vendor, _ in unknown.most_common(_MAX_NAMED))
        self._log.warn(
            "{key} binds {devices} to vendors that are not installed ({vendors}): they are "
            "refused; correct or remove these fields",
            key=DEVICE_VENDORS,
            devices=counted(unknown.total(), "device"),
            vendors=named if len(unknown) <= _MAX_NAMED else f"{named}, …",
        )


def _devices(bound: Mapping[str, str]) -> str:
    return counted(len(bound), "device")
