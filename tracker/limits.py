"""Limits for the connections of devices, in one object that is checked once, at start."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from tracker.settings import duration, optional, setting, size

#: Default of ``--message-bytes``: maximum number of bytes of a message that are stored.
MESSAGE_BYTES: Final = 8192


@frozen
class Limits:
    """Limits that are checked before a byte is buffered. Each is an option of the same name.

    Sizes are in bytes, times in seconds.
    """

    frame_bytes: int = setting(
        8192,
        64,
        1 << 20,
        "Maximum length of a frame of records, in bytes; of a Teltonika device, its data length.",
    )
    command_frame_bytes: int = setting(
        65536,
        64,
        1 << 20,
        "Maximum data length of a command or message frame of a Teltonika device, in bytes.",
    )
    records: int = setting(255, 1, 255, "Maximum number of records in a frame.")
    buffer_bytes: int = setting(
        16384,
        64,
        1 << 24,
        "Maximum number of buffered bytes of a connection; above it, the connection is not read.",
    )
    connections: int = setting(
        100_000, 1, 10_000_000, "Maximum number of connections of the process."
    )
    connections_per_address: int | None = optional(
        1,
        10_000_000,
        "Maximum number of connections from one address (for IPv6, from one /64 network). "
        "[default: half of the connection slots, but at least 1000 and at most nine tenths of the "
        "slots]",
    )
    connection_rate: int = setting(
        1000, 1, 1_000_000, "Maximum number of new connections per second."
    )
    connection_rate_per_address: int = setting(
        500,
        1,
        1_000_000,
        "Maximum number of new connections per second from one address (a carrier's NAT may hide "
        "many devices behind one).",
    )
    datagrams_under_way: int = setting(
        1000,
        1,
        1_000_000,
        "Maximum number of datagrams that wait for Redis; further ones are dropped.",
    )
    message_rate: float = setting(
        100.0,
        0.1,
        1_000_000,
        "Maximum number of unsolicited messages per second from one connection.",
    )
    message_bytes_rate: float = setting(
        65536.0,
        1,
        1 << 30,
        "Maximum number of bytes of unsolicited messages per second from one connection. A "
        "connection over either rate is not read.",
    )
    message_burst: float = duration(
        10.0, 0.1, 3600, "Maximum burst of messages: as many as in this time at the maximum rates."
    )
    message_bytes: int = setting(
        MESSAGE_BYTES,
        64,
        1 << 20,
        "Maximum number of bytes of a message that are stored. A longer message is truncated, and "
        "its full length is stored.",
    )
    kept_memory: int = size(
        64 << 20,
        1 << 20,
        1 << 36,
        "Maximum memory for entries that devices never send again, until Redis has confirmed them. "
        "When it is used up, connections with further ones are not read. Unread frames of ended "
        "connections may use as much again.",
    )
    peer_work: float = setting(
        0.05,
        0.0001,
        1,
        "Time for decoding, in seconds per second, that one connection or UDP sender may always "
        "use.",
    )
    spare_work: float = setting(
        0.1,
        0.001,
        1,
        "Time for decoding, in seconds per second, that all peers together may use beyond "
        "--peer-work.",
    )
    login_timeout: float = duration(30.0, 0.1, 3600, "Maximum time from connection to login.")
    idle_timeout: float = duration(
        600.0,
        1,
        604_800,
        "Time without a complete frame or ping after which a connection is closed.",
    )
