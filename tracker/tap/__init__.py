"""``twistd tracker ROLE``: its options, and the service that they describe."""

from tracker.tap.command import Options, makeService
from tracker.tap.role import installed_vendors

__all__ = ["Options", "installed_vendors", "makeService"]
