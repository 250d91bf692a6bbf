"""The interfaces of a vendor's tools for people who examine bytes.

The tools are pure code. A vendor object provides them by the interfaces of
:mod:`tracker.vendors.tools`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tracker.outcomes import Decoded, Fatal


class Decoder(Protocol):
    """Shows the bytes of devices as JSON documents."""

    @property
    def kinds(self) -> Sequence[str]:
        """Kinds of bytes that a user may name, because they can be confused; often empty."""

    def recognises(self, data: bytes) -> bool:
        """Return True if the first bytes are those of the vendor's frames.

        :param data: not empty.
        """

    def names(self, model: str | None) -> Any:
        """Return the names that :meth:`decode` adds; None if the vendor has no names.

        :param model: model of the device; None if it is unknown.
        :raises UnknownModel: if there are no names for the model. The message is one line.
        """

    def decode(
        self, data: bytes, kind: str | None = None, names: Any = None
    ) -> Decoded[Any] | Fatal:
        """Decode all bytes.

        :param kind: one of :attr:`kinds`; None: it is recognised by the first bytes.
        :param names: result of :meth:`names`; None: none are added.
        :return: an object for one frame, an array of objects for several; or the first error,
            whose ``offset`` counts from the start of ``data``. A truncated frame is an error.
        """

    def summarise(self, document: Mapping[str, Any], sent: bool) -> tuple[str, str] | None:
        """Summarise a piece of traffic, as the vendor describes it, in a few words.

        :param sent: True if the server sent it.
        :return: one word for its kind (such as ``records``, ``ack``, ``command``), and a summary of
            its content; None if the document is another vendor's, or malformed.
        """


class Encoder(Protocol):
    """Makes bytes of the JSON documents that the vendor's :class:`Decoder` returns."""

    @property
    def key(self) -> str:
        """A field that each of its documents has, and no other vendor's."""

    def encode(self, document: Any) -> bytes:
        """Return the bytes of a document, which is an object or a non-empty array.

        :param document: result of :func:`tracker.vendors.documents.read_json`.
        :raises ValueError: if the document is invalid; the message is one line, with the path to
            the wrong value.
        """
