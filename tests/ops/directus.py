"""The double of Directus as a process: ``python -m tests.ops.directus PORT IMEI``.

It holds one device, and a pending command for that device.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor as installed_reactor
from twisted.web.server import Site

from tests.unit.bridge.double import DirectusDouble

KEY = "00000000-0000-4000-8000-000000000001"


def main(port: int, imei: str) -> None:
    """Serve the double until killed."""
    double = DirectusDouble()
    device = dict.fromkeys(double.tables["devices"].columns)
    double.rows("devices")[imei] = device | {"imei": imei, "enabled": True}
    command = dict.fromkeys(double.tables["commands"].columns)
    command |= {"id": KEY, "imei": imei, "text": "getinfo", "status": "pending"}
    command |= {
        "date_created": "2026-11-22T10:00:00.000Z",
        "expires_at": "2096-11-22T10:00:00.000Z",
    }
    double.rows("commands")[KEY] = command
    reactor: object = installed_reactor
    reactor.listenTCP(port, Site(double), interface="127.0.0.1")  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
