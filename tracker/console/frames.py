"""Live frames of devices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.console.events import Broadcast, EventStream, TooManyStreams, event
from tracker.console.ports import ControlPorts
from tracker.control.client import ControlClient
from tracker.control.commands import ControlError
from tracker.control.watching import DeviceEvent
from tracker.errors import Refused, Unavailable
from tracker.observe.ratelimit import LimitedLog

#: Seconds between two checks of the instances that watched devices are connected to.
INTERVAL: Final = 3.0
#: Maximum number of devices that are watched at the same time.
MAX_WATCHED_DEVICES: Final = 20
#: Events that are queued for a slow reader; then the oldest is dropped.
MAX_QUEUED_EVENTS: Final = 50
#: Bytes of a frame, and characters of its description, that are sent to browsers.
MAX_FRAME_BYTES: Final = 2048
MAX_DESCRIPTION_LENGTH: Final = 15_000

#: Returns the instance that a device is connected to.
Owner = Callable[[str], Awaitable[str | None]]


@define(eq=False)
class _Watch:
    streams: set[EventStream] = field(factory=set)
    client: ControlClient | None = None
    instance_id: str = ""
    state_text: str = ""
    """Text of the last ``state`` event."""
    lock: DeferredLock = field(factory=DeferredLock)


class Frames(TimerService):
    """Live frames of devices, through the control ports of their instances.

    A device is watched while browsers show it. When it connects to another instance, the watch
    moves there.
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
        self._failures = LimitedLog(clock, self._log)
        self._errors = LimitedLog(clock, self._log)

    def open(self, request: Any, device_id: str, allowed: Callable[[], bool]) -> EventStream:
        """Start to send the frames of a device to a browser.

        :param allowed: returns True while the user may read.
        :raises TooManyStreams: if too many streams are open, or too many devices are watched.
        """
        watch = self._watches.get(device_id)
        if watch is None and len(self._watches) >= MAX_WATCHED_DEVICES:
            raise TooManyStreams(f"too many watched devices: the limit is {MAX_WATCHED_DEVICES}")
        stream = self._broadcast.open(
            request, allowed, max_queued=MAX_QUEUED_EVENTS, published=False
        )
        watch = self._watches.setdefault(device_id, _Watch())
        watch.streams.add(stream)
        stream.ended.addCallback(lambda _: self._stream_ended(device_id, watch, stream))
        if watch.state_text:
            stream.send(event("state", {"text": watch.state_text}))
        Deferred.fromCoroutine(self._follow(device_id, watch))
        return stream

    def _stream_ended(self, device_id: str, watch: _Watch, stream: EventStream) -> None:
        watch.streams.discard(stream)
        if not watch.streams and self._watches.get(device_id) is watch:
            Deferred.fromCoroutine(self._follow(device_id, watch))

    async def _follow_all(self) -> None:
        for device_id, watch in list(self._watches.items()):
            await self._follow(device_id, watch)

    async def _follow(self, device_id: str, watch: _Watch) -> None:
        """Watch the device at its present instance, or unwatch it if no stream is left."""
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
            self._report_state(watch, "Frames are not available. See the console's log.")
            self._failures.warn(
                "frames of {device_id} are not available: {error}",
                device_id=device_id,
                error=error,
            )
        except Exception:  # noqa: BLE001 - an exception would end the timer
            self._errors.failure("frames of a device are not available: unexpected error")
        finally:
            watch.lock.release()

    async def _move(self, device_id: str, watch: _Watch) -> None:
        instance_id = await self._owner(device_id) or ""
        client = self._ports.client_of(instance_id) if instance_id else None
        if client is not None and client is watch.client and instance_id == watch.instance_id:
            return
        await self._unwatch(device_id, watch)
        if not instance_id:
            self._report_state(
                watch, "The device is not connected. Frames appear after it connects."
            )
            return
        if client is None:
            reason = self._ports.describe(instance_id)["reason"]
            self._report_state(watch, f"No frames from {instance_id}: {reason}.")
            return
        await client.watch(device_id, lambda received: self._forward(watch, received))
        watch.client, watch.instance_id = client, instance_id
        self._report_state(
            watch, f"The device is connected to {instance_id}. Its frames appear here."
        )

    async def _unwatch(self, device_id: str, watch: _Watch) -> None:
        client, watch.client, watch.instance_id = watch.client, None, ""
        if client is not None:
            try:
                await client.unwatch(device_id)
            except ControlError as error:
                self._log.debug("device was not unwatched: {error}", error=error)

    def _forward(self, watch: _Watch, received: DeviceEvent) -> None:
        frame = event(
            "frame",
            {
                "at": received.at,
                "kind": received.kind,
                "bytes": len(received.raw),
                "hex": received.raw[:MAX_FRAME_BYTES].hex(" "),
                "decoded": received.decoded[:MAX_DESCRIPTION_LENGTH],
                "truncated": received.truncated or len(received.raw) > MAX_FRAME_BYTES,
                "dropped": received.dropped,
            },
        )
        for stream in watch.streams:
            stream.send(frame)

    def _report_state(self, watch: _Watch, text: str) -> None:
        if text != watch.state_text:
            watch.state_text = text
            for stream in watch.streams:
                stream.send(event("state", {"text": text}))
