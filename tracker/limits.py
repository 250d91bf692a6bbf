"""What connections of devices may cost, in one object that is checked once, at start."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from tracker.settings import optional, setting

#: Bytes of a message that are stored, unless an option says otherwise.
MESSAGE_BYTES: Final = 8192


@frozen
class Limits:
    """Limits that hold before a byte is buffered. Each is an option of the same name.

    Sizes are in bytes, times in seconds.
    """

    frame_bytes: int = setting(8192, 64, 1 << 20, "Longest AVL frame (its data length).")
    command_frame_bytes: int = setting(
        65536, 64, 1 << 20, "Longest command or message frame (its data length)."
    )
    records: int = setting(255, 1, 255, "Records in a packet.")
    buffer_bytes: int = setting(
        16384, 64, 1 << 24, "Unread bytes of a connection above which it is not read further."
    )
    connections: int = setting(100_000, 1, 10_000_000, "Connections of the process.")
    connections_per_address: int | None = optional(
        1,
        10_000_000,
        "Connections from one address (for IPv6, from one /64 network). Default: half of the "
        "connection slots, but at least 1000 and at most nine tenths of the slots.",
    )
    connection_rate: int = setting(1000, 1, 1_000_000, "New connections a second.")
    connection_rate_per_address: int = setting(
        500, 1, 1_000_000, "New connections a second from one address; fleets share carriers'."
    )
    datagrams_under_way: int = setting(
        1000, 1, 1_000_000, "UDP packets that wait for Redis; more are dropped."
    )
    message_rate: float = setting(
        100.0, 0.1, 1_000_000, "Unsolicited messages per second from one connection."
    )
    message_bytes_rate: float = setting(
        65536.0,
        1,
        1 << 30,
        "Bytes of unsolicited messages per second from one connection. It is not read while over "
        "either rate.",
    )
    message_burst: float = setting(
        10.0, 0.1, 3600, "Seconds' worth of messages that may arrive at once."
    )
    message_bytes: int = setting(
        MESSAGE_BYTES,
        64,
        1 << 20,
        "Bytes of a message that are stored. A longer one is cut; its full length is stored, too.",
    )
    peer_work: float = setting(
        0.05,
        0.0001,
        1,
        "Seconds of decoding per second that one connection or UDP sender may always use.",
    )
    spare_work: float = setting(
        0.1, 0.001, 1, "Seconds of decoding per second that all peers over --peer-work share."
    )
    login_timeout: float = setting(30.0, 0.1, 3600, "Seconds from connection to login.")
    idle_timeout: float = setting(
        600.0, 1, 604_800, "Seconds without a whole frame or ping until a device counts as gone."
    )
