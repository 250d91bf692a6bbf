"""Addresses and endpoint strings, as people write and read them."""

from __future__ import annotations

import re
from typing import Final

_COLON: Final = re.compile(r"(?<!\\):")


def readable(address: object) -> str:
    """An ``IAddress`` for a log: ``192.0.2.1:5027``, ``[2001:db8::1]:5027`` or a path."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is not None:
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    name = getattr(address, "name", None)
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    return name or type(address).__name__


def with_tcp_default(endpoint: str, position: int, name: str, value: object) -> str:
    """An endpoint string; if it is a ``tcp:`` one without argument ``name``, with that.

    :param position: where the argument stands when it is given without its name.
    """
    parts = _COLON.split(endpoint)
    positional = [part for part in parts if "=" not in part]
    if parts[0] != "tcp" or len(positional) > position or f"{name}=" in endpoint:
        return endpoint
    return f"{endpoint}:{name}={value}"
