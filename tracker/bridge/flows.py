"""The Flows that notify the bridge of changes, as Directus' API takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from tracker.bridge.schema import COMMANDS, DEVICES, SECRET_HEADER, own_id


@frozen
class Flow:
    """A Flow with its only operation, an HTTP request."""

    id: str
    row: Mapping[str, Any]
    operation_id: str
    operation: Mapping[str, Any]


def flows(commands_url: str, devices_url: str, secret: str | None) -> tuple[Flow, ...]:
    """Return the Flows that notify the bridge of new commands and changed devices.

    :param commands_url: URL of the webhook for commands.
    :param devices_url: URL of the webhook for devices.
    :param secret: value of the header :data:`SECRET_HEADER`; None: no header.
    """
    return (
        _flow(
            title="new commands",
            icon="send",
            name="commands",
            url=commands_url,
            secret=secret,
            scope=["items.create"],
            collection=COMMANDS,
            # Directus replaces the placeholder without adding quotes.
            body=json.dumps({"key": "{{$trigger.key}}"}),
        ),
        _flow(
            title="changed devices",
            icon="router",
            name="devices",
            url=devices_url,
            secret=secret,
            scope=["items.create", "items.update", "items.delete"],
            collection=DEVICES,
            body=json.dumps({"event": "{{$trigger.event}}"}),
        ),
    )


def _flow(
    *,
    title: str,
    icon: str,
    name: str,
    url: str,
    secret: str | None,
    scope: Sequence[str],
    collection: str,
    body: str,
) -> Flow:
    flow_id, operation_id = own_id(f"flow {name}"), own_id(f"operation {name}")
    headers = [] if secret is None else [{"header": SECRET_HEADER, "value": secret}]
    return Flow(
        flow_id,
        {
            "name": f"Tracker: {title}",
            "icon": icon,
            "description": "Notifies the bridge at once; without it, the next poll finds changes",
            "status": "active",
            "trigger": "event",
            # Otherwise Directus logs each run, with the secret.
            "accountability": None,
            "options": {"type": "action", "scope": list(scope), "collections": [collection]},
        },
        operation_id,
        {
            "name": "Notify the bridge",
            "key": "tell_the_bridge",
            "type": "request",
            "flow": flow_id,
            "position_x": 19,
            "position_y": 1,
            "options": {"method": "POST", "url": url, "headers": headers, "body": body},
        },
    )
