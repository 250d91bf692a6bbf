"""HTTP servers that limit the connections, bytes and time a peer can use.

A connection waits either for its peer (for a request, for the rest of one, for the next one, or
until the peer has read an answer), or for our answer. Every wait for the peer has a deadline
that the peer cannot extend by sending bytes. The connection that has waited longest for its
peer is closed when a new one needs its place. A request that is being answered, such as a
stream of events, has no deadline; its connection is closed only if its peer does not read.

Bodies are held in memory, up to the limit of the site, and never in a file. The answer to a
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

from tracker.net.endpoints import readable
from tracker.net.libraries import CheckedChannel
from tracker.net.refusals import Refusal, Reports
from tracker.net.routes import respond
from tracker.net.shares import AddressShares, address_group
from tracker.net.waits import Stage, Wait

#: Bytes of a line of a request's head, and of the whole head; number of header fields.
MAX_LINE: Final = 8192
MAX_HEAD: Final = 16_384
MAX_FIELDS: Final = 100

#: Reads of pipelined requests that are buffered while another one is answered.
_MAX_AHEAD: Final = 32
#: Digits of a Content-Length. (int() refuses 4,300 of them with an error of its own.)
_MAX_DIGITS: Final = 18
#: Connections at most that are closed for others in one turn of the reactor.
_HEADROOM: Final = 16


@frozen
class HTTPLimits:
    """Limits of a site."""

    connections: int
    """Open connections, and so files."""
    per_address: int
    """Connections of one address (for IPv6, of a /64; all peers on Unix sockets are one)."""
    body: int
    """Bytes of a request's body."""
    persistent: bool = True
    """True if a connection may carry more than one request."""

    @staticmethod
    def headroom(limit: int) -> int:
        """Return how many connections are kept free below a limit.

        A closed connection holds its file until the next turn of the reactor. So connections
        are closed for others before the last place is taken.
        """
        return max(1, min(_HEADROOM, limit // 4))


class BoundedRequest(Request):
    """A request whose body and head are checked before anything else sees them."""

    channel: BoundedChannel
    site: BoundedSite
    #: Header fields that are read as text: UTF-8, and given once.
    text_headers: ClassVar[Sequence[bytes]] = (b"host",)

    def head_fault(self) -> str | None:
        """Return what is wrong with the header fields, or None."""
        for name in self.text_headers:
            values = self.requestHeaders.getRawHeaders(name) or ()
            # Of two, a proxy may use one and we the other (for Host: RFC 9112, section 3.2).
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
        """Answer the request, or refuse it if its target is malformed."""
        if not path.startswith(b"/") or not path.isascii():
            self.channel.refuse(Refusal.MALFORMED, "the request target is not an ASCII path")
        elif not _is_utf8(unquote_to_bytes(path)):
            self.channel.refuse(Refusal.MALFORMED, "the request target is not UTF-8")
        else:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        """Answer with the site's resource."""
        self._begin()
        super().process()

    def refuse(self, refusal: Refusal, status: int, text: str) -> None:
        """Answer a request that is complete with the reason why it is refused."""
        self._begin()
        self.report(refusal, text)
        self.answer(status, {"error": text})

    def report(self, refusal: Refusal, text: str) -> None:
        """Report that this request was refused."""
        self.site.reports.refused(refusal, readable(self.getClientAddress()), text)

    def _begin(self) -> None:
        self.site = self.channel.site
        for name, value in self.site.headers:
            self.setHeader(name, value)

    def processingFailed(self, reason: Failure) -> Failure:
        """Report an internal error, and answer 500."""
        self.site.reports.failed(reason)
        channel = getattr(self, "channel", None)  # there is none once it is finished
        if channel is None:
            return reason
        if self.startedWriting:
            channel.abort()
        else:
            self.answer(INTERNAL_SERVER_ERROR, {"error": "internal error; see the log"})
        return reason

    def answer(self, status: int, answer: object) -> None:
        """Answer with JSON, and finish."""
        self.write(respond(self, status, _json(answer)))
        self.finish()

    def setHeader(self, name: Any, value: Any) -> None:
        """Set a header field; ignore ``Server``, which would show Twisted's version."""
        if name != b"Server":
            super().setHeader(name, value)


class BoundedChannel(CheckedChannel):
    """A connection whose waits for its peer are bounded."""

    site: BoundedSite
    transport: Any
    MAX_LENGTH = MAX_LINE
    totalHeadersSize = MAX_HEAD
    maxHeaders = MAX_FIELDS
    #: The address in whose share it is counted; None when it is no longer counted.
    share: str | None = None
    _ahead = 0

    def __init__(self) -> None:
        super().__init__()
        self._wait = Wait(
            lambda seconds, call: self.callLater(seconds, call),
            lambda for_peer: (self.site.waits if for_peer else self.site.works)(self),
            self.overdue,
        )

    @property
    def closing(self) -> bool:
        """True while our side closes the connection: received bytes are ignored."""
        return self._wait.stage is Stage.CLOSE

    def connectionMade(self) -> None:
        """Wait for the first request. (With TLS, the handshake has only begun.)"""
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
        elif stage is Stage.ANSWER:
            self._ahead += 1
            if self._ahead > _MAX_AHEAD or self._wait.stalled:
                # At each read, Twisted adds up the lengths of all buffered reads. It resumes the
                # transport when the answer is complete.
                self.transport.pauseProducing()
        try:
            super().dataReceived(data)
        except Exception:  # noqa: BLE001 - Twisted would log it, however often a peer causes it
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
        """Answer a request, unless it was refused."""
        if not self.closing:
            self._ahead = 0
            self._wait.begin(Stage.ANSWER, self._wait.stalled)
            super().allContentReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Return whether the connection is kept after a request."""
        if self.site.limits.persistent:
            return bool(super().checkPersistence(request, version))
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def requestDone(self, request: Any) -> None:
        """Wait for the next request; close the connection if one has come already."""
        if self._wait.stage is Stage.ANSWER:
            self._wait.begin(Stage.IDLE, self._wait.stalled)
        if self.unread().strip(b"\r\n"):
            # One read has room for hundreds of requests. Answering all of them would keep
            # everybody else waiting. No browser, proxy or Prometheus sends ahead, and whoever
            # does has to expect this (RFC 9112, section 9.3.2).
            self.persistent = False
        super().requestDone(request)
        if self._wait.stalled and not self.closing:
            # Twisted pauses it only if that begins between two requests. Else what comes is added
            # to a buffer until the peer has read the answer.
            self.transport.pauseProducing()

    def refuse_large(self) -> None:
        """Refuse a request with a body over the limit."""
        limit = self.site.limits.body
        self.refuse(Refusal.TOO_LARGE, f"the body is larger than {limit} bytes")

    def refuse(self, refusal: Refusal, text: str) -> None:
        """Answer a request that is not complete, and close the connection."""
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

    def malformed(self, why: str) -> None:
        """See CheckedChannel."""
        self.refuse(Refusal.MALFORMED, why)

    def loseConnection(self) -> None:
        """Close the connection once the peer has read the last answer, or at the deadline."""
        if not self.closing:
            self._wait.begin(Stage.CLOSE)
        super().loseConnection()

    def overdue(self) -> None:
        """Close the connection because its peer was too slow."""
        wait = self._wait
        if wait.stage is Stage.IDLE and not wait.stalled:
            # The kernel may still hold the end of an answer, which an abort would discard.
            self.loseConnection()
            return
        what = "its answer to be read" if wait.stalled else wait.stage.value
        if wait.stalled or wait.stage in (Stage.HEAD, Stage.BODY):
            text = f"waited {wait.seconds:g} s for {what}"
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
        """Wait for the peer to read: the transport's buffer is full."""
        super().pauseProducing()
        if not self.closing:
            # One read may bring several requests over TLS: a record at a time, paused or not.
            self.paused = True
            self._wait.begin(self._wait.stage, stalled=True)

    def resumeProducing(self) -> None:
        """Continue: the peer has read."""
        if self.closing:
            return
        self.paused = False
        self._wait.begin(self._wait.stage)
        super().resumeProducing()
        if self._wait.stage is not Stage.ANSWER:
            super().dataReceived(b"")  # parse what was buffered

    def _leave(self) -> None:
        self._wait.cancel()
        self._wait.stage = Stage.CLOSE
        self.site.leaves(self)


class BoundedSite(Site):
    """A site with a bounded number of connections, in all and from each address.

    :param headers: header fields of all answers.
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
            # Nothing here is a form, and Twisted's parser of their types can be made to raise.
            parsePOSTFormSubmission=False,
        )
        self.timeOut = None  # the channel has deadlines of its own
        self.limits = limits
        self.reports = reports
        self.headers = headers
        self._shares = AddressShares(limits.per_address)
        self._open: set[BoundedChannel] = set()
        # Channels that are closed in the next turn of the reactor, and their addresses.
        self._leaving: dict[BoundedChannel, str] = {}
        # Channels that wait for their peers, the one that has waited longest first.
        self._waiting: dict[BoundedChannel, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a channel, or None if there is no room for it."""
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
        """Open connections."""
        return len(self._open)

    def waits(self, channel: BoundedChannel) -> None:
        """Note that a channel starts to wait for its peer."""
        self.works(channel)
        if channel.share is not None:
            self._waiting[channel] = None

    def works(self, channel: BoundedChannel) -> None:
        """Note that a channel waits for us."""
        self._waiting.pop(channel, None)

    def leaves(self, channel: BoundedChannel) -> None:
        """Give back the share of a channel that closes at once."""
        self.works(channel)
        if channel.share is not None:
            share, channel.share = channel.share, None
            self._shares.release(share)
            self._leaving[channel] = address_group(share)

    def closed(self, channel: BoundedChannel) -> None:
        """Forget a channel whose connection is closed."""
        self._open.discard(channel)
        self._leaving.pop(channel, None)

    def log(self, request: HTTPRequest) -> None:
        """Log nothing: probes, browser tabs and Flows send requests all the time."""

    def getContentFile(self, length: int | None) -> BytesIO:
        """Return a buffer in memory. (Twisted writes large bodies to temporary files.)"""
        return BytesIO()

    def acceptableProtocols(self) -> list[bytes]:
        """Offer nothing but HTTP/1.1: HTTP/2 would have another channel, without limits."""
        return [b"http/1.1"]

    def _refusal(self, host: str) -> Refusal | None:
        """Count one more connection from an address, or return why it has to be refused."""
        if len(self._open) >= self.limits.connections:
            if not self._leaving:
                self._make_room(None)  # for the next one: this one holds its file until then
            return Refusal.CONNECTIONS
        if not self._shares.take(host):
            group = address_group(host)
            leaving = sum(other == group for other in self._leaving.values())
            # Otherwise one address could take all places by many connections in one turn.
            if leaving >= self.limits.headroom(self.limits.per_address):
                return Refusal.ADDRESS
            if not self._make_room(group):
                return Refusal.ADDRESS
            self._shares.take(host)
        most = self.limits.connections
        if len(self._open) - len(self._leaving) >= most - self.limits.headroom(most):
            self._make_room(None)
        return None

    def _make_room(self, group: str | None) -> bool:
        """Close the connection that has waited longest for its peer.

        No request is being processed on it, so it is safe to close it. So a peer that holds
        connections without sending requests does not keep others out.

        :param group: close only a connection of these addresses; None: of any.
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


def _json(answer: object) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"
