"""What connections of devices may cost, in one object that is checked once, at start."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, fields, frozen


def _between(low: float, high: float) -> Any:
    def check(instance: Any, attribute: Attribute[Any], value: float) -> None:
        if not low <= value <= high:
            shown = f"{value:,}".removesuffix(".0")
            raise ValueError(f"must be between {low:,} and {high:,}: {shown}")

    return check


def _limit(default: float, low: float, high: float, help: str) -> Any:  # noqa: A002
    metadata = {"help": help}
    return field(default=default, validator=_between(low, high), metadata=metadata)


@frozen
class Limits:
    """Limits that hold before a byte is buffered. Each is an option of the same name.

    Sizes are in bytes, times in seconds.
    """

    frame_bytes: int = _limit(8192, 64, 1 << 20, "Longest AVL frame (its data length).")
    command_frame_bytes: int = _limit(
        65536, 64, 1 << 20, "Longest command or message frame (its data length)."
    )
    records: int = _limit(255, 1, 255, "Records in a packet.")
    buffer_bytes: int = _limit(
        16384, 64, 1 << 24, "Unread bytes of a connection above which it is not read further."
    )
    connections: int = _limit(100_000, 1, 10_000_000, "Connections of the process.")
    connection_rate: int = _limit(1000, 1, 1_000_000, "New connections a second.")
    connection_rate_per_address: int = _limit(
        500, 1, 1_000_000, "New connections a second from one address; fleets share carriers'."
    )
    datagrams_under_way: int = _limit(
        1000, 1, 1_000_000, "UDP packets that wait for Redis; more are dropped."
    )
    login_timeout: float = _limit(30.0, 0.1, 3600, "Seconds from connection to login.")
    idle_timeout: float = _limit(
        600.0, 1, 604_800, "Seconds without a whole frame or ping until a device counts as gone."
    )

    @classmethod
    def options(cls) -> list[tuple[str, Any, str]]:
        """Option name, default and explanation of each limit."""
        return [
            (
                attribute.name.replace("_", "-"),
                attribute.default,
                attribute.metadata["help"],
            )
            for attribute in fields(cls)
        ]
