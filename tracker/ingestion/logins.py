"""The devices of one vendor: which are served, which wait, and which have to leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define

from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.figures import GatewayFigures
from tracker.interfaces import Admission, IConnection, IDeviceAuthority, IPeer, Rejection
from tracker.untrusted import shown

#: Decisions after which a connected device is no longer served.
_REFUSALS: Final = (Admission.REFUSED, Admission.OTHER_VENDOR)


@define(eq=False, kw_only=True)
class Logins:
    """Decides on the devices of one vendor, and carries the decisions out."""

    vendor: str
    _figures: GatewayFigures
    _authority: IDeviceAuthority
    _limiter: ConnectionLimiter
    _connected: ConnectedDevices
    _are_open: Callable[[], bool]
    """Returns False while the instance does not run, or drains."""
    _reject: Callable[[IPeer, str, Rejection], None]

    def opened(self, connection: IConnection) -> None:
        """Let others have the slot of a connection without a served device if slots are short."""

        def give_up(reason: str) -> None:
            kind = Rejection.NO_LOGIN
            if connection.device_ids:
                kind = Rejection.NOT_SERVED
                reason = "the device is not served, and other connections need its slot"
            self._reject(connection, reason, kind)
            connection.close()

        self._limiter.opened(connection, give_up)

    def closed(self, connection: IConnection) -> None:
        """Note that a connection has ended, and free its slot."""
        self._limiter.closed(connection)
        self.leave(connection)

    def leave(self, connection: IConnection) -> None:
        """Stop serving the devices of a connection that has ended."""
        for device_id in list(connection.device_ids):
            self._connected.leave(device_id, self, connection)

    def admission(self, device_id: str) -> Admission:
        """See IGateway."""
        return self._decide(device_id, self._authority.admission)

    def login(self, connection: IConnection, device_id: str) -> Admission:
        """See IGateway."""
        admission = self._login(connection, device_id)
        self._figures.logins[admission] += 1
        return admission

    def _login(self, connection: IConnection, device_id: str) -> Admission:
        admission = self.admission(device_id)
        if admission is not Admission.SERVED:
            stays = connection.may_stay and self._are_open()
            self._report(connection, device_id, admission, stays)
            if not stays:
                return admission
        limit = self._limiter.add_device(connection)
        if limit is not None:
            self._reject(connection, limit.reason, limit.kind)
            return Admission.LATER
        if admission is Admission.SERVED:
            self._serve(connection, device_id)
            return Admission.SERVED
        self._wait(connection, device_id)
        return Admission.WAITING

    def _decide(self, device_id: str, ask: Callable[[str, str], Admission]) -> Admission:
        if not self._are_open():
            return Admission.LATER
        admission = ask(device_id, self.vendor)
        if admission is Admission.SERVED and self._other_vendor(device_id) is not None:
            return Admission.OTHER_VENDOR
        return admission

    def _other_vendor(self, device_id: str) -> str | None:
        """Return the other vendor under which a device is connected and was heard recently."""
        found = self._connected.find(device_id)
        if found is None or found.vendor == self.vendor or not found.connection.is_alive():
            return None
        return found.vendor

    def _report(
        self, connection: IConnection, device_id: str, admission: Admission, stays: bool
    ) -> None:
        """Log and count that a device is not served, unless that is undecided."""
        after = "; it may stay connected, and waits" if stays else ""
        if admission is Admission.REFUSED:
            reason = f"the device is not served here{after}"
            self._reject(connection, reason, Rejection.NOT_SERVED)
        elif admission is Admission.OTHER_VENDOR:
            vendor = self._other_vendor(device_id)
            why = f"connected as a device of {vendor}" if vendor else "bound to another vendor"
            self._reject(connection, f"the device is {why}{after}", Rejection.OTHER_VENDOR)

    def _serve(self, connection: IConnection, device_id: str) -> None:
        self._limiter.logged_in(connection)
        older = self._connected.serve(device_id, self, connection)
        if older is not None and older.connection is not connection:
            # The device has usually lost that connection before it reconnected. It repeats
            # unacknowledged records on the new one.
            self._figures.replaced += 1
            older.owner.log_out(older.connection, device_id)

    def _wait(self, connection: IConnection, device_id: str) -> None:
        def admit() -> None:
            if not connection.is_alive():
                return
            if self._decide(device_id, self._authority.review) is Admission.SERVED:
                self._serve(connection, device_id)
                connection.serve(device_id)

        self._connected.wait(device_id, self, connection, admit=admit)
        self._check_slot(connection)

    def _check_slot(self, connection: IConnection) -> None:
        if not self._connected.is_serving(connection):
            self.opened(connection)

    def log_out(self, connection: IConnection, device_id: str) -> None:
        """Remove a device from its connection, which closes if it has no other device."""
        connection.log_out(device_id)
        if device_id not in connection.device_ids:
            self._limiter.remove_device(connection)
            self._connected.leave(device_id, self, connection)
            self._check_slot(connection)

    def moved(self, connection: IConnection, device_id: str, owner: str) -> None:
        """Log out a device that is connected to another instance."""
        reason = f"the device is now connected to instance {shown(owner)}"
        self._reject(connection, reason, Rejection.MOVED)
        self.log_out(connection, device_id)

    def review(self) -> None:
        """Stop serving the devices that the authority refuses now."""
        for device_id in self._connected.ids(self.vendor):
            found = self._connected.find(device_id)
            if found is None or found.owner is not self:
                continue
            admission = self._authority.review(device_id, self.vendor)
            if admission not in _REFUSALS:
                continue
            if admission is Admission.REFUSED:
                reason, kind = "the device was removed from the allow-list", Rejection.NOT_SERVED
            else:
                reason, kind = "the device was bound to another vendor", Rejection.OTHER_VENDOR
            self._reject(found.connection, reason, kind)
            if found.connection.withdraw(device_id):
                self._wait(found.connection, device_id)
