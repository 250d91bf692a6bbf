"""Every name that Tracker uses in Redis, and nothing else.

Services agree on these names or they silently talk past each other, so no other
module spells one out.
"""

from __future__ import annotations

from typing import Final

#: Consumer group through which position streams are processed.
PROCESSOR_GROUP: Final = "processor"

#: Consumer group through which an ingest instance takes its commands.
INGEST_GROUP: Final = "ingest"

#: Consumer group through which Directus is told what has become of commands.
DIRECTUS_GROUP: Final = "directus"

#: What the name of the user begins with that a role logs in as, where each has its own.
USER_PREFIX: Final = "tracker-"

#: Hash of device → the ingest instance that it is connected to.
CONNECTIONS: Final = "connections:registry"

#: Hash of device → its vendor, of the devices that are connected.
CONNECTED_VENDORS: Final = "connections:vendors"

#: Stream of what became of each command.
RESPONSES: Final = "commands:responses"

#: Set of the devices that commands wait for: they are connected to no instance.
WAITING: Final = "commands:waiting"

#: Set of the devices that are served, where not all are.
ALLOWED_DEVICES: Final = "devices:allowed"

#: Hash of device → model, for naming its attributes.
DEVICE_MODELS: Final = "devices:models"

#: Stream of a vendor's positions, unless ``REDIS_TELEMETRY_STREAM`` pins another.
TELEMETRY_TEMPLATE: Final = "telemetry:{vendor}"


def telemetry_stream(vendor: str, template: str = TELEMETRY_TEMPLATE) -> str:
    """The stream that holds the positions of a vendor's devices."""
    return template.replace("{vendor}", vendor)


def dead_letters(stream: str) -> str:
    """The stream of entries of ``stream`` that could not be processed."""
    return f"{stream}:dead"


def heartbeat(instance_id: str) -> str:
    """The key that lives as long as the ingest instance does."""
    return f"instance:heartbeat:{instance_id}"


def outbound(instance_id: str) -> str:
    """The stream of commands for the devices that are connected to an instance."""
    return f"commands:outbound:{instance_id}"


def waiting_commands(device_id: str) -> str:
    """The stream of commands that wait for a device until it is connected."""
    return f"{WAITING}:{device_id}"


def command_record(command_id: str) -> str:
    """The key that records that a command must not be written again, and how it ended."""
    return f"commands:sent:{command_id}"
