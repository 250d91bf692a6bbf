"""The data of a frame or datagram: records, or messages."""

from __future__ import annotations

from typing import Final

from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika import codec7
from tracker.vendors.teltonika.avl import (
    CODECS,
    MIN_DATA_BYTES,
    Packet,
    decode_packet,
    encode_packet,
)
from tracker.vendors.teltonika.codec7 import Codec7Packet, decode_codec7
from tracker.vendors.teltonika.messages import (
    MESSAGE_CODECS,
    Messages,
    decode_messages,
    encode_messages,
)
from tracker.wording import counted

#: Names of the codecs that entries have.
ENTRY_CODECS: Final = frozenset(
    (
        codec7.NAME,
        *(codec.name for codec in CODECS.values()),
        *(codec.name for codec in MESSAGE_CODECS.values()),
    )
)

Content = Packet | Codec7Packet | Messages


def decode_data(data: bytes, max_records: int = 255) -> Decoded[Content] | Rejected:
    """Decode the data of a frame (codec id to second count) of any codec.

    :return: ``Rejected`` if the data contradicts itself, has more than ``max_records`` records,
        or has an unknown codec; its ``offset`` counts from the codec id.
    """
    if len(data) < MIN_DATA_BYTES:
        reason = (
            f"data of {counted(len(data), 'byte')} is too short: the minimum is {MIN_DATA_BYTES}"
        )
        return Rejected(len(data), 0, reason)
    codec_id = data[0]
    if codec_id in MESSAGE_CODECS:
        return decode_messages(data)
    if codec_id in CODECS or codec_id == codec7.CODEC_ID:
        if data[1] > max_records:
            return Rejected(
                len(data),
                1,
                f"{counted(data[1], 'record')} exceed the limit of {max_records}",
                field="count of records",
                expected=f"{max_records} or less",
                found=str(data[1]),
            )
        return decode_packet(data) if codec_id in CODECS else decode_codec7(data)
    known = sorted((*CODECS, codec7.CODEC_ID, *MESSAGE_CODECS))
    return Rejected(
        len(data),
        0,
        f"unsupported codec {codec_id:#04x}",
        field="codec",
        expected="one of " + ", ".join(f"{known_id:#04x}" for known_id in known),
        found=f"{codec_id:#04x}",
    )


def encode_data(content: Content) -> bytes:
    """Return the data of a frame with this content: the inverse of :func:`decode_data`.

    :raises ValueError: if the codec cannot encode it, or is Codec 7, which is for decoding only.
    """
    if isinstance(content, Packet):
        return encode_packet(content.codec, content.records)
    if isinstance(content, Messages):
        return encode_messages(content)
    raise ValueError("codec 7 cannot be encoded: only decoding is supported")
