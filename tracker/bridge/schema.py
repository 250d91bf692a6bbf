"""The collections, policies and users that the bridge needs, in the form that Directus takes.

Rows of Directus' own that are made here have ids of their own, so that they are found again
whatever somebody calls them in the meantime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

from attrs import frozen

from tracker.command import DEFAULT_TIMEOUT, MAX_TIMEOUT, Status

COMMANDS: Final = "commands"
DEVICES: Final = "devices"
#: A table of the processor; Directus only shows it.
LAST_POSITIONS: Final = "last_positions"

#: Seconds for which a command holds whose row does not say when it expires.
DEFAULT_EXPIRY: Final = 3600.0

#: States of a row that it is in before anything is known of its command.
PENDING: Final = "pending"
ROUTED: Final = "routed"
#: State → what it is called, icon, colour; in the order in which a row goes through them.
STATES: Final[Mapping[str, tuple[str, str, str]]] = {
    PENDING: ("Pending", "schedule", "#A2B5CD"),
    ROUTED: ("Routed", "alt_route", "#3399FF"),
    Status.DELIVERED.value: ("Delivered", "check", "#6644FF"),
    Status.RESPONDED.value: ("Responded", "done_all", "#2ECDA7"),
    Status.REJECTED.value: ("Rejected", "block", "#FFA439"),
    Status.FAILED.value: ("Failed", "error", "#E35169"),
    Status.EXPIRED.value: ("Expired", "timer_off", "#7A8B9A"),
}

#: What a person says of a command, and what only the bridge says.
ASKED: Final = ("imei", "text", "codec", "expires_at", "timeout")
TOLD: Final = (
    *("status", "reason", "response", "instance"),
    *("routed_at", "delivered_at", "finished_at"),
)
#: What the bridge reads of a device.
DEVICE_FACTS: Final = ("imei", "model", "name", "enabled")

#: The header that tells the bridge that it is Directus who asks; its value is the secret.
SECRET_HEADER: Final = "X-Tracker-Secret"  # noqa: S105 - its name

_NAMESPACE: Final = UUID("3f0c1f3e-5f0e-4d37-9c55-5d1a6a0d7f11")


def own_id(name: str) -> str:
    """The id of a row of Directus' own that is made here."""
    return str(uuid5(_NAMESPACE, name))


BRIDGE_POLICY: Final = own_id("policy bridge")
OPERATOR_POLICY: Final = own_id("policy operator")
BRIDGE_ROLE: Final = own_id("role bridge")
BRIDGE_USER: Final = own_id("user bridge")


@frozen
class Collection:
    """A collection with its fields, each as ``POST /fields/{collection}`` takes it."""

    name: str
    meta: Mapping[str, Any]
    fields: Sequence[Mapping[str, Any]]


@frozen
class Policy:
    """A policy with its permissions, each with collection, action and fields."""

    id: str
    row: Mapping[str, Any]
    permissions: Sequence[Mapping[str, Any]]
    exact: bool
    """Whether it may hold no other permission."""


_IMEI_RULE: Final[Mapping[str, Any]] = {
    "validation": {"_and": [{"imei": {"_regex": "^[0-9]{15}$"}}]},
    "validation_message": "An IMEI has 15 digits.",
}


def _field(
    name: str,
    kind: str,
    interface: str | None,
    *,
    options: Mapping[str, Any] | None = None,
    schema: Mapping[str, Any] | None = None,
    label: str | None = None,
    **meta: Any,
) -> Mapping[str, Any]:
    """Describe a field.

    :param label: where Directus would not make a good one of the name.
    """
    if label is not None:
        meta["translations"] = [{"language": "en-US", "translation": label}]
    meta = {"interface": interface, "options": options, "width": "half", **meta}
    return {"field": name, "type": kind, "meta": meta, "schema": schema or {}}


def _time(name: str, note: str, **meta: Any) -> Mapping[str, Any]:
    """A moment that only machines write."""
    return _field(
        name,
        "timestamp",
        "datetime",
        **{"special": None, "readonly": True, "note": note, **meta},
        display="datetime",
        display_options={"relative": True},
    )


#: What a machine says is not shown before it says anything: not to who writes a command down.
_ONCE_ROUTED: Final = [
    {
        "name": "Nothing is known as yet",
        "rule": {"_and": [{"status": {"_eq": PENDING}}, {"finished_at": {"_null": True}}]},
        "hidden": True,
    }
]
_ONCE_SAVED: Final = [
    {
        "name": "Not saved as yet",
        "rule": {"_and": [{"date_created": {"_null": True}}]},
        "hidden": True,
    }
]
_PERSON: Final = "{{first_name}} {{last_name}}"
_STATUS_CHOICES: Final = [
    {"text": text, "value": value, "icon": icon, "color": color}
    for value, (text, icon, color) in STATES.items()
]
_MODELS: Final = ("FMB003", "FMB120", "FMB125", "FMB140", "FMB920", "FMC003", "FMC130", "FMC650")

_COMMAND_FIELDS: Final = (
    _field(
        "id",
        "uuid",
        "input",
        schema={"is_primary_key": True},
        special=["uuid"],
        readonly=True,
        hidden=True,
    ),
    _field(
        "imei",
        "string",
        "input",
        options={"iconLeft": "router", "placeholder": "356307042441013"},
        schema={"max_length": 15, "is_nullable": False, "is_indexed": True},
        label="IMEI",
        required=True,
        note="Of the device: 15 digits, as on its label and in Devices.",
        **_IMEI_RULE,
    ),
    _field(
        "status",
        "string",
        "select-dropdown",
        options={"choices": _STATUS_CHOICES},
        schema={
            "default_value": PENDING,
            "is_nullable": False,
            "max_length": 16,
            "is_indexed": True,
        },
        readonly=True,
        display="labels",
        display_options={"showAsDot": False, "choices": _STATUS_CHOICES},
        note="What has become of it; the bridge says so.",
    ),
    _field(
        "text",
        "text",
        "input-multiline",
        options={"placeholder": "getinfo", "font": "monospace"},
        schema={"is_nullable": False},
        label="Command",
        required=True,
        width="full",
        note="The command as the device wants it, such as getinfo or setdigout 1.",
    ),
    _field(
        "codec",
        "string",
        "select-dropdown",
        options={
            "choices": [
                {"text": "Codec 12", "value": "12"},
                {"text": "Codec 14 (the device also checks the IMEI)", "value": "14"},
            ],
            "allowNone": True,
            "placeholder": "Codec 12",
        },
        schema={"max_length": 16},
        note="How it is packed; Codec 12 when empty.",
    ),
    _field(
        "timeout",
        "integer",
        "input",
        options={"min": 1, "max": int(MAX_TIMEOUT), "placeholder": f"{DEFAULT_TIMEOUT:g}"},
        note=f"Seconds that the answer is waited for; {DEFAULT_TIMEOUT:g} when empty.",
    ),
    _field(
        "expires_at",
        "timestamp",
        "datetime",
        display="datetime",
        display_options={"relative": True},
        note=(
            "It is never written to the device after this moment; "
            f"{DEFAULT_EXPIRY / 60:g} minutes after its creation when empty."
        ),
    ),
    _field(
        "instance",
        "string",
        "input",
        options={"iconLeft": "dns"},
        schema={"max_length": 255},
        readonly=True,
        conditions=_ONCE_ROUTED,
        note="The ingest instance that had the device's connection.",
    ),
    _field(
        "response",
        "text",
        "input-multiline",
        options={"font": "monospace"},
        readonly=True,
        width="full",
        conditions=_ONCE_ROUTED,
        note="What the device has answered; or what is wrong with the command.",
    ),
    _field(
        "reason",
        "text",
        "input-multiline",
        readonly=True,
        width="full",
        conditions=_ONCE_ROUTED,
        note="Why it was not delivered, or not answered.",
    ),
    _time("routed_at", "When an instance took it over.", conditions=_ONCE_ROUTED),
    _time(
        "delivered_at",
        "When its bytes were written to the device's connection.",
        conditions=_ONCE_ROUTED,
    ),
    _time("finished_at", "When nothing more could become of it.", conditions=_ONCE_ROUTED),
    _time(
        "date_created",
        "When it was written down.",
        special=["date-created"],
        label="Created At",
        conditions=_ONCE_SAVED,
    ),
    _field(
        "user_created",
        "uuid",
        "select-dropdown-m2o",
        options={"template": _PERSON},
        special=["user-created"],
        label="Created By",
        conditions=_ONCE_SAVED,
        readonly=True,
        display="user",
        note="Who wants it.",
    ),
)

_DEVICE_FIELDS: Final = (
    _field(
        "imei",
        "string",
        "input",
        options={"iconLeft": "router", "placeholder": "356307042441013"},
        schema={"is_primary_key": True, "max_length": 15, "is_nullable": False},
        label="IMEI",
        required=True,
        note="15 digits, as on the device's label.",
        **_IMEI_RULE,
    ),
    _field(
        "enabled",
        "boolean",
        "boolean",
        options={"label": "May connect"},
        schema={"default_value": True, "is_nullable": False},
        special=["cast-boolean"],
        display="boolean",
        note="Devices that are not enabled are turned away, where an allow-list is asked for.",
    ),
    _field(
        "name",
        "string",
        "input",
        options={"iconLeft": "local_shipping", "placeholder": "AA 123 BB"},
        schema={"max_length": 255},
        note="What people call it: a plate, a vehicle.",
    ),
    _field(
        "model",
        "string",
        "select-dropdown",
        options={
            "choices": [{"text": model, "value": model} for model in _MODELS],
            "allowOther": True,
            "allowNone": True,
        },
        schema={"max_length": 64},
        note="What its attributes mean depends on it.",
    ),
    _field(
        "notes",
        "text",
        "input-multiline",
        width="full",
    ),
    _time("date_created", "When it was added.", special=["date-created"]),
    _time("date_updated", "When it was changed.", special=["date-updated"]),
)

COLLECTIONS: Final = (
    Collection(
        COMMANDS,
        {
            "icon": "send",
            "color": "#6644FF",
            "note": "Commands to devices, and what became of them",
            "display_template": "{{text}} → {{imei}}: {{status}}",
            "item_duplication_fields": ["imei", "text", "codec", "timeout"],
        },
        _COMMAND_FIELDS,
    ),
    Collection(
        DEVICES,
        {
            "icon": "router",
            "color": "#3399FF",
            "note": "The devices that belong here",
            "display_template": "{{name}} {{imei}}",
        },
        _DEVICE_FIELDS,
    ),
)

#: How a table that the processor has made is shown.
LAST_POSITIONS_META: Final = {
    "icon": "location_on",
    "color": "#2ECDA7",
    "note": "The latest place of each device, written by Tracker",
    "display_template": "{{device_id}}: {{latitude}}, {{longitude}}",
    # Rows change all the time, and nobody changes them here.
    "accountability": None,
}

#: Collection, field and what it refers to.
RELATIONS: Final = (
    {
        "collection": COMMANDS,
        "field": "user_created",
        "related_collection": "directus_users",
        "schema": {"on_delete": "SET NULL"},
        "meta": {},
    },
)


def _permission(collection: str, action: str, fields: Sequence[str]) -> Mapping[str, Any]:
    return {
        "collection": collection,
        "action": action,
        "fields": list(fields),
        "permissions": {},
        "validation": None,
        "presets": None,
    }


def policies(with_positions: bool) -> tuple[Policy, ...]:
    """What the bridge may do, and what a person needs who sends commands.

    :param with_positions: whether ``last_positions`` is in the same database.
    """
    bridge = (
        _permission(COMMANDS, "read", ("id", *ASKED, *TOLD, "date_created")),
        _permission(COMMANDS, "update", TOLD),
        _permission(DEVICES, "read", DEVICE_FACTS),
    )
    operator = (
        _permission(COMMANDS, "read", ("*",)),
        _permission(COMMANDS, "create", ASKED),
        _permission(DEVICES, "read", ("*",)),
        # Else a row that somebody else has written opens with an error.
        _permission("directus_users", "read", ("id", "first_name", "last_name", "avatar")),
        *([_permission(LAST_POSITIONS, "read", ("*",))] if with_positions else []),
    )
    return (
        Policy(
            BRIDGE_POLICY,
            {
                "name": "Tracker bridge",
                "icon": "sync_alt",
                "description": "What twistd tracker bridge may do: no more than it needs",
                "admin_access": False,
                "app_access": False,
            },
            bridge,
            exact=True,
        ),
        Policy(
            OPERATOR_POLICY,
            {
                "name": "Tracker operator",
                "icon": "send",
                "description": "For people who send commands to devices",
                "admin_access": False,
                "app_access": True,
            },
            operator,
            exact=False,
        ),
    )


ROLE: Final[Mapping[str, Any]] = {
    "name": "Tracker bridge",
    "icon": "sync_alt",
    "description": "The user that twistd tracker bridge is",
}
USER: Final[Mapping[str, Any]] = {
    "first_name": "Tracker",
    "last_name": "bridge",
    "role": BRIDGE_ROLE,
    "status": "active",
}
