"""The Flows that notify the bridge of changes, in the form that Directus takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from tracker.bridge.schema import COMMANDS, DEVICES, SECRET_HEADER, own_id


@frozen
class Flow:
    """A Flow with its only operation, a request."""

    id: str
    row: Mapping[str, Any]
    operation_id: str
    operation: Mapping[str, Any]


def flows(commands_url: str, devices_url: str, secret: str | None) -> tuple[Flow, ...]:
    """Return the flows that notify the bridge of new commands and changed devices.

    :param secret: None: the header of the secret is left as it is, or out.
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
            # In quotes of its own: it is put in as it is.
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
            "description": "Tells the bridge, which would otherwise find out a little later",
            "status": "active",
            "trigger": "event",
            # A log of each run would hold the secret.
            "accountability": None,
            "options": {"type": "action", "scope": list(scope), "collections": [collection]},
        },
        operation_id,
        {
            "name": "Tell the bridge",
            "key": "tell_the_bridge",
            "type": "request",
            "flow": flow_id,
            "position_x": 19,
            "position_y": 1,
            "options": {"method": "POST", "url": url, "headers": headers, "body": body},
        },
    )
