"""What a process counts and measures, for Prometheus to fetch."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from tracker import __version__


def make_registry() -> CollectorRegistry:
    """A registry with what each process tells of itself; one a process, given to its parts."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Info("tracker_build", "The version that runs.", registry=registry).info(
        {"version": __version__}
    )
    return registry


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """All metrics in the format that an Accept header asks for, and its content type."""
    encode, content_type = choose_encoder(accept)
    text: bytes = encode(registry)
    return text, content_type
