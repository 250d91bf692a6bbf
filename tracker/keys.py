"""Every name that Tracker uses in Redis, and nothing else.

Services that disagree on a name fail without an error. Therefore no other module contains such a
name.
"""

from __future__ import annotations

from typing import Final

#: Consumer group through which position streams are processed.
PROCESSOR_GROUP: Final = "processor"

#: Consumer group through which an ingest instance reads its commands.
INGEST_GROUP: Final = "ingest"

#: Consumer group through which the bridge reports the responses to commands to Directus.
DIRECTUS_GROUP: Final = "directus"

#: Prefix of the Redis users of the roles, if each role has its own user.
USER_PREFIX: Final = "tracker-"

#: Device registry, a hash: device ID → ID of the ingest instance that it is connected to.
CONNECTIONS: Final = "connections:registry"

#: Hash of the connected devices: device ID → name of the vendor.
CONNECTED_VENDORS: Final = "connections:vendors"

#: Prefix of the names of all streams of commands and responses.
COMMANDS_PREFIX: Final = "commands:"

#: Stream of the responses to commands.
RESPONSES: Final = "commands:responses"

#: Set of the IDs of offline devices for which commands wait.
WAITING: Final = "commands:waiting"

#: Sorted set of the commands that are not claimed yet, by the time of their expiry: stream and ID
#: of the entry, separated by a space.
DEADLINES: Final = "commands:deadlines"

#: Set of the IDs of devices that are served, if an allow-list is used.
ALLOWED_DEVICES: Final = "devices:allowed"

#: Hash: device ID → model, for naming the device's attributes.
DEVICE_MODELS: Final = "devices:models"

#: Hash: device ID → name of the only vendor as whose device it is served.
DEVICE_VENDORS: Final = "devices:vendors"

#: Stream of a vendor's positions, unless ``REDIS_TELEMETRY_STREAM`` pins another name.
TELEMETRY_TEMPLATE: Final = "telemetry:{vendor}"


def telemetry_stream(vendor: str, template: str = TELEMETRY_TEMPLATE) -> str:
    """Return the name of the stream with the positions of a vendor's devices."""
    return template.replace("{vendor}", vendor)


def dead_letters(stream: str) -> str:
    """Return the name of the stream with the dead letters of ``stream``."""
    return f"{stream}:dead"


def checkpoint(stream: str) -> str:
    """Return the key of the processors' checkpoint of a stream, a sorted set."""
    return f"processor:checkpoint:{stream}"


def heartbeat(instance_id: str) -> str:
    """Return the key of an ingest instance's heartbeat."""
    return f"instance:heartbeat:{instance_id}"


def outbound(instance_id: str) -> str:
    """Return the name of the stream with the commands for the devices of an instance."""
    return f"commands:outbound:{instance_id}"


def waiting_commands(device_id: str) -> str:
    """Return the name of the stream with the commands that wait for an offline device."""
    return f"{WAITING}:{device_id}"


def command_record(command_id: str) -> str:
    """Return the key that guards a command against a second write, and holds its final status."""
    return f"commands:sent:{command_id}"
