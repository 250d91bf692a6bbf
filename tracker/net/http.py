"""HTTP servers that limit the connections, bytes and time a peer can use.

A connection waits either for its peer (for a request, the rest of one, the next one, or until
the peer has read a response), or for our response. Every wait for the peer has a deadline that
the peer cannot extend by sending bytes. The connection that has waited longest for its peer is
closed when a new one needs its slot. A request that is being served, such as a stream of events,
has no deadline; its connection is closed only if its peer does not read.

Bodies are held in memory, up to the limit of the site, and never in a file. The response to a
malformed request is JSON, ``{"error": …}``, and the connection is closed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any, ClassVar, Final
from urllib.parse import unquote_to_bytes

from attrs import frozen
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import (
    BAD_REQUEST,
    INTERNAL_SERVER_ERROR,
    REQUEST_ENTITY_TOO_LARGE,
    RESPONSES,
)
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request, Site

from tracker.durations import format_duration
from tracker.net.endpoints import readable
from tracker.net.libraries import CheckedChannel
from tracker.net.refusals import Refusal, Reports
from tracker.net.routes import respond
from tracker.net.shares import AddressShares, address_group
from tracker.net.waits import Stage, Wait
from tracker.wording import counted

#: Limits of the head of a request: bytes of a line, bytes of the head, number of header fields.
MAX_LINE: Final = 8192
MAX_HEAD: Final = 16_384
MAX_FIELDS: Final = 100

#: Reads of pipelined requests that are buffered while another request is served.
_MAX_AHEAD: Final = 32
#: Digits of a Content-Length. (int() raises an error of its own for 4,300 digits.)
_MAX_DIGITS: Final = 18
#: Connections that may be closed for others in one reactor turn.
_HEADROOM: Final = 16


@frozen
class HTTPLimits:
    """Limits of a site."""

    connections: int
    """Maximum number of open connections. Each needs an open file."""
    per_address: int
    """Maximum for one address (for IPv6, a /64; all peers on Unix sockets count as one)."""
    body: int
    """Maximum number of bytes of a request's body."""
    persistent: bool = True
    """True if a connection may carry more than one request."""

    @staticmethod
    def headroom(limit: int) -> int:
        """Return the number of slots that are kept free below a limit.

        A closed connection holds its file until the next reactor turn. Connections are therefore
        closed for others before the last slot is used.
        """
        return max(1, min(_HEADROOM, limit // 4))


class BoundedRequest(Request):
    """A request whose head and body are checked before it is served."""

    channel: BoundedChannel
    site: BoundedSite
    #: Header fields that are read as text: UTF-8, and given once.
    text_headers: ClassVar[Sequence[bytes]] = (b"host",)

    def head_fault(self) -> str | None:
        """Return the error of the header fields, or None."""
        for name in self.text_headers:
            values = self.requestHeaders.getRawHeaders(name) or ()
            # A proxy might use one of two values and we the other (Host: RFC 9112, section 3.2).
            if len(values) > 1:
                return f"the header {name.decode()} is given twice"
            if any(not _is_utf8(value) for value in values):
                return f"the header {name.decode()} is not UTF-8"
        return None

    def handleContentChunk(self, data: bytes) -> None:
        """Append to the body; refuse the request if the body becomes too large."""
        if self.channel.closing:
            return
        assert self.content is not None  # noqa: S101 - the head is complete
        if self.content.tell() + len(data) > self.channel.site.limits.body:
            self.channel.refuse_large()
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Serve the request, or refuse it if its target is malformed."""
        if not path.startswith(b"/") or not path.isascii():
            self.channel.refuse(Refusal.MALFORMED, "the request target is not an ASCII path")
        elif not _is_utf8(unquote_to_bytes(path)):
            self.channel.refuse(Refusal.MALFORMED, "the request target is not UTF-8")
        else:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        """Serve the request by the site's resource."""
        self._begin()
        super().process()

    def refuse(self, refusal: Refusal, status: int, text: str) -> None:
        """Refuse a complete request with an error response.

        :param text: the reason, for the peer and the log.
        """
        self._begin()
        self.report(refusal, text)
        self.send_json(status, {"error": text})

    def report(self, refusal: Refusal, text: str) -> None:
        """Count and log that this request was refused."""
        self.site.reports.refused(refusal, readable(self.getClientAddress()), text)

    def _begin(self) -> None:
        self.site = self.channel.site
        for name, value in self.site.headers:
            self.setHeader(name, value)

    def processingFailed(self, reason: Failure) -> Failure:
        """Log an internal error, and send status 500."""
        self.site.reports.failed(reason)
        channel = getattr(self, "channel", None)  # removed once the request is finished
        if channel is None:
            return reason
        if self.startedWriting:
            channel.abort()
        else:
            self.send_json(INTERNAL_SERVER_ERROR, {"error": "internal error; see the log"})
        return reason

    def send_json(self, status: int, value: object) -> None:
        """Send a response with a JSON body, and finish the request."""
        self.write(respond(self, status, _json(value)))
        self.finish()

    def setHeader(self, name: Any, value: Any) -> None:
        """Set a header field; ignore ``Server``, which would show Twisted's version."""
        if name != b"Server":
            super().setHeader(name, value)


class BoundedChannel(CheckedChannel):
    """A connection whose waits for its peer have deadlines."""

    site: BoundedSite
    transport: Any
    MAX_LENGTH = MAX_LINE
    totalHeadersSize = MAX_HEAD
    maxHeaders = MAX_FIELDS
    #: Address whose share the connection counts against; None if it does not count any longer.
    share: str | None = None
    _ahead = 0

    def __init__(self) -> None:
        super().__init__()
        self._wait = Wait(
            lambda seconds, call: self.callLater(seconds, call),
            lambda for_peer: (self.site.wait_begun if for_peer else self.site.wait_ended)(self),
            self.overdue,
        )

    @property
    def closing(self) -> bool:
        """True while our side closes the connection: received bytes are ignored."""
        return self._wait.stage is Stage.CLOSE

    def connectionMade(self) -> None:
        """Wait for the first request. With TLS, the handshake has only begun."""
        super().connectionMade()
        self._wait.begin(Stage.NEW)

    def dataReceived(self, data: bytes) -> None:
        """Parse received bytes."""
        stage = self._wait.stage
        if stage is Stage.CLOSE or not data:
            return
        if stage is Stage.IDLE:
            self._wait.begin(Stage.HEAD, self._wait.stalled)
        elif stage is Stage.NEW:
            self._wait.stage = Stage.HEAD  # its deadline started with the connection
        elif stage is Stage.RESPONSE:
            self._ahead += 1
            if self._ahead > _MAX_AHEAD or self._wait.stalled:
                # At each read, Twisted adds up the lengths of all buffered reads. It resumes the
                # transport when the response is complete.
                self.transport.pauseProducing()
        try:
            super().dataReceived(data)
        except Exception:  # noqa: BLE001 - Twisted would log it without a rate limit
            self.site.reports.failed(Failure())
            self.abort()

    def headerReceived(self, line: bytes) -> bool:
        """Parse a header field; refuse a Content-Length of too many digits."""
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value.strip()) > _MAX_DIGITS:
            self.refuse_large()
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """Check the head of a request, and wait for its body."""
        if self.closing:
            return
        if (fault := self.requests[-1].head_fault()) is not None:
            self.refuse(Refusal.MALFORMED, fault)
        elif self.length is not None and self.length > self.site.limits.body:
            self.refuse_large()
        else:
            if self.length != 0:
                self._wait.begin(Stage.BODY)
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """Parse a part of a body, unless its request was refused."""
        if not self.closing:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """Serve a request, unless it was refused."""
        if not self.closing:
            self._ahead = 0
            self._wait.begin(Stage.RESPONSE, self._wait.stalled)
            super().allContentReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Return True if the connection stays open after a request."""
        if self.site.limits.persistent:
            return bool(super().checkPersistence(request, version))
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def requestDone(self, request: Any) -> None:
        """Wait for the next request; close the connection if one has arrived already."""
        if self._wait.stage is Stage.RESPONSE:
            self._wait.begin(Stage.IDLE, self._wait.stalled)
        if self.unread().strip(b"\r\n"):
            # One read can hold hundreds of requests; serving all of them would delay all other
            # peers. No browser, proxy or Prometheus pipelines requests, and a client that does has
            # to expect that the connection is closed (RFC 9112, section 9.3.2).
            self.persistent = False
        super().requestDone(request)
        if self._wait.stalled and not self.closing:
            # Twisted pauses the transport only if the stall begins between two requests. Otherwise
            # it would buffer received bytes until the peer has read the response.
            self.transport.pauseProducing()

    def refuse_large(self) -> None:
        """Refuse a request with a body over the limit."""
        limit = self.site.limits.body
        self.refuse(Refusal.TOO_LARGE, f"the body is larger than {counted(limit, 'byte')}")

    def refuse(self, refusal: Refusal, text: str) -> None:
        """Send an error response to an incomplete request, and close the connection.

        :param text: the reason, for the peer and the log.
        """
        if self.closing:
            return
        self.site.reports.refused(refusal, readable(self.transport.getPeer()), text)
        status = REQUEST_ENTITY_TOO_LARGE if refusal is Refusal.TOO_LARGE else BAD_REQUEST
        body = _json({"error": text})
        fields = (
            *self.site.headers,
            (b"connection", b"close"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        )
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, RESPONSES[status], head, body)
        )
        self.loseConnection()

    def malformed(self, reason: str) -> None:
        """See CheckedChannel."""
        self.refuse(Refusal.MALFORMED, reason)

    def loseConnection(self) -> None:
        """Close the connection once the peer has read the last response, or at the deadline."""
        if not self.closing:
            self._wait.begin(Stage.CLOSE)
        super().loseConnection()

    def overdue(self) -> None:
        """Close the connection because its peer was too slow."""
        wait = self._wait
        if wait.stage is Stage.IDLE and not wait.stalled:
            # The kernel may still hold the end of a response, which an abort would discard.
            self.loseConnection()
            return
        awaited = "the peer to read its response" if wait.stalled else wait.stage.value
        if wait.stalled or wait.stage in (Stage.HEAD, Stage.BODY):
            text = f"waited {format_duration(wait.seconds or 0)} for {awaited}"
            peer = readable(self.transport.getPeer())
            self.site.reports.refused(Refusal.OVERDUE, peer, text)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._leave()
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self._leave()
        self.site.closed(self)
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        """Wait for the peer to read, since the transport's buffer is full."""
        super().pauseProducing()
        if not self.closing:
            # With TLS, one read can deliver several requests, even while the transport is paused.
            self.paused = True
            self._wait.begin(self._wait.stage, stalled=True)

    def resumeProducing(self) -> None:
        """Continue, since the peer has read."""
        if self.closing:
            return
        self.paused = False
        self._wait.begin(self._wait.stage)
        super().resumeProducing()
        if self._wait.stage is not Stage.RESPONSE:
            super().dataReceived(b"")  # parse the buffered bytes

    def _leave(self) -> None:
        self._wait.cancel()
        self._wait.stage = Stage.CLOSE
        self.site.release_share(self)


class BoundedSite(Site):
    """A site with a bounded number of connections, in all and from each address.

    :param headers: header fields of all responses.
    """

    noisy = False
    protocol: Any = BoundedChannel

    def __init__(
        self,
        resource: Any,
        reactor: IReactorTime,
        limits: HTTPLimits,
        reports: Reports,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        request_factory: type[BoundedRequest] = BoundedRequest,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=request_factory,
            reactor=reactor,
            # No form is served, and a peer can make Twisted's parser of their types raise errors.
            parsePOSTFormSubmission=False,
        )
        self.timeOut = None  # the channel has deadlines of its own
        self.limits = limits
        self.reports = reports
        self.headers = headers
        self._shares = AddressShares(limits.per_address)
        self._open: set[BoundedChannel] = set()
        # Channels that close in the next reactor turn → groups of their addresses.
        self._leaving: dict[BoundedChannel, str] = {}
        # Channels that wait for their peers, the longest wait first.
        self._waiting: dict[BoundedChannel, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a channel, or None if no slot is free."""
        host = str(getattr(addr, "host", ""))
        refusal = self._refusal(host)
        if refusal is not None:
            self.reports.refused(refusal, readable(addr), f"too many connections ({refusal.value})")
            return None
        channel: BoundedChannel = super().buildProtocol(addr)
        channel.share = host
        self._open.add(channel)
        self._waiting[channel] = None
        return channel

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    def wait_begun(self, channel: BoundedChannel) -> None:
        """Note that a channel starts to wait for its peer."""
        self.wait_ended(channel)
        if channel.share is not None:
            self._waiting[channel] = None

    def wait_ended(self, channel: BoundedChannel) -> None:
        """Note that a channel does not wait for its peer."""
        self._waiting.pop(channel, None)

    def release_share(self, channel: BoundedChannel) -> None:
        """Release the address share of a channel that closes at once."""
        self.wait_ended(channel)
        if channel.share is not None:
            share, channel.share = channel.share, None
            self._shares.release(share)
            self._leaving[channel] = address_group(share)

    def closed(self, channel: BoundedChannel) -> None:
        """Forget a closed channel."""
        self._open.discard(channel)
        self._leaving.pop(channel, None)

    def log(self, request: HTTPRequest) -> None:
        """Log no requests: probes, browser tabs and Flows send them all the time."""

    def getContentFile(self, length: int | None) -> BytesIO:
        """Return a buffer in memory; Twisted would write large bodies to temporary files."""
        return BytesIO()

    def acceptableProtocols(self) -> list[bytes]:
        """Offer only HTTP/1.1: Twisted's channel for HTTP/2 has no such limits."""
        return [b"http/1.1"]

    def _refusal(self, host: str) -> Refusal | None:
        """Count a new connection from an address, or return the reason to refuse it."""
        if len(self._open) >= self.limits.connections:
            if not self._leaving:
                self._close_longest_wait(None)  # frees a slot for the next connection
            return Refusal.CONNECTIONS
        if not self._shares.take(host):
            group = address_group(host)
            leaving = sum(other == group for other in self._leaving.values())
            # Otherwise one address could take all slots by many connections in one reactor turn.
            if leaving >= self.limits.headroom(self.limits.per_address):
                return Refusal.ADDRESS
            if not self._close_longest_wait(group):
                return Refusal.ADDRESS
            self._shares.take(host)
        limit = self.limits.connections
        if len(self._open) - len(self._leaving) >= limit - self.limits.headroom(limit):
            self._close_longest_wait(None)
        return None

    def _close_longest_wait(self, group: str | None) -> bool:
        """Close the connection that has waited longest for its peer; return False if none waits.

        It serves no request, so no work is lost. A peer that holds connections without sending
        requests therefore cannot block others.

        :param group: close only a connection of this group of addresses; None: of any.
        """
        for channel in self._waiting:
            if group is None or address_group(channel.share or "") == group:
                channel.abort()
                return True
        return False


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
