"""The traffic of devices, live, for browsers that watch one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.console.events import Broadcast, EventStream, TooMany, event
from tracker.console.ports import ControlPorts
from tracker.control.client import ControlClient
from tracker.control.commands import ControlError
from tracker.control.watching import DeviceEvent
from tracker.errors import Refused, Unavailable
from tracker.observe.ratelimit import LimitedLog

#: Seconds between two checks of the instances that watched devices are connected to.
INTERVAL: Final = 3.0
#: Devices that are watched at the same time.
MOST_DEVICES: Final = 20
#: Events that wait for a slow reader; then the oldest are dropped, and counted.
MOST_WAITING: Final = 50
#: Bytes of a frame, and characters of its description, that are shown.
MOST_BYTES: Final = 2048
MOST_TEXT: Final = 15_000

#: Device → the instance that it is connected to.
Owner = Callable[[str], Awaitable[str | None]]


@define(eq=False)
class _Watch:
    streams: set[EventStream] = field(factory=set)
    client: ControlClient | None = None
    instance_id: str = ""
    told: str = ""
    """The last message to the readers on the state of the connection."""
    lock: DeferredLock = field(factory=DeferredLock)


class Frames(TimerService):
    """Watches a device while some browser shows it, through the control port of its instance.

    A device that connects to another instance is followed.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, owner: Owner, ports: ControlPorts, broadcast: Broadcast
    ) -> None:
        super().__init__(INTERVAL, self._follow_all)
        self.clock = clock
        self._owner = owner
        self._ports = ports
        self._broadcast = broadcast
        self._watches: dict[str, _Watch] = {}
        self._troubles = LimitedLog(clock, self._log)
        self._faults = LimitedLog(clock, self._log)

    def open(self, request: Any, device_id: str, allowed: Callable[[], bool]) -> EventStream:
        """Begin to show a device to whoever asks.

        :param allowed: whether they may go on.
        :raises TooMany: when there are too many that are watched.
        """
        watch = self._watches.get(device_id)
        if watch is None and len(self._watches) >= MOST_DEVICES:
            raise TooMany(f"{MOST_DEVICES} devices are watched, as many as there may be")
        stream = self._broadcast.open(request, allowed, most=MOST_WAITING, public=False)
        watch = self._watches.setdefault(device_id, _Watch())
        watch.streams.add(stream)
        stream.ended.addCallback(lambda _: self._left(device_id, watch, stream))
        if watch.told:
            stream.send(event("state", {"text": watch.told}))
        Deferred.fromCoroutine(self._follow(device_id, watch))
        return stream

    def _left(self, device_id: str, watch: _Watch, stream: EventStream) -> None:
        watch.streams.discard(stream)
        if not watch.streams and self._watches.get(device_id) is watch:
            Deferred.fromCoroutine(self._follow(device_id, watch))

    async def _follow_all(self) -> None:
        for device_id, watch in list(self._watches.items()):
            await self._follow(device_id, watch)

    async def _follow(self, device_id: str, watch: _Watch) -> None:
        """Watch where the device is now, and nowhere if nobody looks."""
        await watch.lock.acquire()
        try:
            if not watch.streams:
                if self._watches.get(device_id) is watch:
                    del self._watches[device_id]
                await self._unwatch(device_id, watch)
                return
            await self._move(device_id, watch)
        except (Refused, Unavailable, ControlError) as error:
            watch.instance_id = ""
            self._tell(watch, "Its frames cannot be shown now; see the console's log.")
            self._troubles.warn(
                "the frames of {device_id} cannot be shown: {error}",
                device_id=device_id,
                error=error,
            )
        except Exception:  # noqa: BLE001 - else it would never be looked at again
            self._faults.failure("the frames of a device cannot be shown")
        finally:
            watch.lock.release()

    async def _move(self, device_id: str, watch: _Watch) -> None:
        instance_id = await self._owner(device_id) or ""
        client = self._ports.client_of(instance_id) if instance_id else None
        if client is not None and client is watch.client and instance_id == watch.instance_id:
            return
        await self._unwatch(device_id, watch)
        if not instance_id:
            self._tell(watch, "The device is not connected. Its frames appear when it is.")
            return
        if client is None:
            self._tell(watch, f"The control port of {instance_id} cannot be asked.")
            return
        await client.watch(device_id, lambda seen: self._happened(watch, seen))
        watch.client, watch.instance_id = client, instance_id
        self._tell(watch, f"Connected to {instance_id}. What it says and is told appears here.")

    async def _unwatch(self, device_id: str, watch: _Watch) -> None:
        client, watch.client, watch.instance_id = watch.client, None, ""
        if client is not None:
            try:
                await client.unwatch(device_id)
            except ControlError as error:
                self._log.debug("not unwatched: {error}", error=error)

    def _happened(self, watch: _Watch, seen: DeviceEvent) -> None:
        made = event(
            "frame",
            {
                "at": seen.at,
                "kind": seen.kind,
                "bytes": len(seen.raw),
                "hex": seen.raw[:MOST_BYTES].hex(" "),
                "decoded": seen.decoded[:MOST_TEXT],
                "truncated": seen.truncated or len(seen.raw) > MOST_BYTES,
                "dropped": seen.dropped,
            },
        )
        for stream in watch.streams:
            stream.send(made)

    def _tell(self, watch: _Watch, text: str) -> None:
        if text != watch.told:
            watch.told = text
            for stream in watch.streams:
                stream.send(event("state", {"text": text}))
