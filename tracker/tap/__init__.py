"""``twistd tracker ROLE``: its options, and the service that they describe."""

from tracker.tap.command import Options, makeService

__all__ = ["Options", "makeService"]
