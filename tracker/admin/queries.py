"""The commands ``info``, ``connections``, ``device`` and ``device-registry``."""

from __future__ import annotations

from typing import Final

import click

from tracker.admin.control import (
    any_instance,
    first_rows,
    instance_of,
    limit_option,
    page_size,
    run_with_control_port,
)
from tracker.admin.options import DeviceId, output_option
from tracker.admin.output import Column, Kind, show_record, show_rows
from tracker.admin.vendors import check_vendor
from tracker.control.client import ControlClient
from tracker.control.commands import NoSuchDevice
from tracker.errors import RunFailed
from tracker.reactor import Reactor

_NUMBER: Final = Kind.NUMBER
_TIME: Final = Kind.TIME

INFO: Final = (
    Column("instance_id"),
    Column("version"),
    Column("started_at", _TIME),
    Column("connections", _NUMBER),
    Column("devices", _NUMBER),
    Column("commands_held", _NUMBER),
    Column("watchers", _NUMBER),
    Column("draining"),
    Column("streams"),
    Column("you"),
    Column("permission"),
)
_FACTS: Final = (
    Column("since", _TIME),
    Column("last_heard", _TIME),
    Column("codec", optional=True),
    Column("records", _NUMBER),
    Column("bytes", Kind.SIZE),
)
CONNECTION: Final = (
    Column("device_id"),
    Column("vendor", optional=True),
    Column("address"),
    *_FACTS,
)
DEVICE: Final = (
    Column("device_id"),
    Column("instance_id"),
    Column("here"),
    Column("vendor"),
    Column("address"),
    *_FACTS,
    Column("queued", _NUMBER),
    Column("outstanding"),
    Column("waiting", _NUMBER),
)
REGISTRATION: Final = (
    Column("device_id"),
    Column("instance_id"),
    Column("vendor", optional=True),
)

_prefix_option = click.option(
    "--prefix", default="", help="Only device IDs that begin with this text."
)
_vendor_option = click.option("--vendor", metavar="NAME", help="Only devices of this vendor.")


@click.command()
@output_option
def info(output: str) -> None:
    r"""Show the state of the instance and your permission.

    The last lines show your name in the instance's log and your permission: read, or operate,
    which includes read.

    \b
    Examples:
      tracker-admin --control unix:/run/tracker/control-eu-1.sock info
      tracker-admin -o json info | jq .devices
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        state = await client.info()
        greeting = client.greeting
        record = {**state, "you": greeting.get("name"), "permission": greeting.get("permission")}
        show_record(INFO, record, output)
        return 0

    run_with_control_port(request)


@click.command()
@_prefix_option
@_vendor_option
@limit_option
@output_option
def connections(prefix: str, vendor: str | None, limit: int | None, output: str) -> None:
    r"""List the devices connected to the instance, by ID.

    \b
    Examples:
      tracker-admin connections --prefix 3563 --limit 20
      tracker-admin connections | sort -k5 | head
      tracker-admin -o json connections | jq -r '.[].device_id'
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        rows = await first_rows(client.connections(prefix, vendor, page_size(limit)), limit)
        if vendor and not rows:
            check_vendor(vendor)
        instance = client.greeting.get("instance_id", "")
        show_rows(CONNECTION, rows, output, empty=_no_devices(prefix, vendor, instance))
        return 0

    run_with_control_port(request)


@click.command()
@click.argument("device_id", metavar="DEVICE", type=DeviceId())
@output_option
def device(device_id: str, output: str) -> None:
    r"""Show where a device is connected, and its connection.

    "here" is "no" if the device is connected to another instance. Query that instance to see the
    state of the connection.

    The exit code is 1 if the device is not connected and no command waits for it.

    \b
    Example:
      tracker-admin device 356307042441013
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        try:
            record = await client.device(device_id)
        except NoSuchDevice:
            raise RunFailed(f"{device_id} is not connected, and no command waits for it.") from None
        show_record(DEVICE, record, output)
        return 0

    run_with_control_port(request, choose=instance_of(device_id))


@click.command()
@_prefix_option
@_vendor_option
@click.option(
    "--instance",
    "instance_id",
    metavar="ID",
    help="Only devices that are connected to this instance.",
)
@limit_option
@output_option
def device_registry(
    *, prefix: str, vendor: str | None, instance_id: str | None, limit: int | None, output: str
) -> None:
    r"""List the devices connected to any instance, by ID.

    \b
    Examples:
      tracker-admin device-registry --instance eu-1
      tracker-admin device-registry | awk 'NR > 1 {print $2}' | sort | uniq -c
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        found = client.device_registry(
            prefix, vendor=vendor, limit=page_size(limit), instance_id=instance_id
        )
        rows = await first_rows(found, limit)
        if vendor and not rows:
            check_vendor(vendor)
        empty = _no_devices(prefix, vendor, instance_id or "any instance")
        show_rows(REGISTRATION, rows, output, empty=empty)
        return 0

    run_with_control_port(request, choose=any_instance)


def _no_devices(prefix: str, vendor: str | None, instance: str) -> str:
    """Return the sentence that says that no device is connected."""
    devices = f"{vendor} devices" if vendor else "devices"
    which = f"{devices} with the prefix {prefix}" if prefix else devices
    return f"No {which} are connected to {instance}."
