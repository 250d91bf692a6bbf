"""The collections, policies and users that the bridge needs, as Directus' API takes them.

Rows of Directus' system collections have fixed IDs here, so that they are found again after a user
has renamed them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

from attrs import frozen

from tracker.command import DEFAULT_TIMEOUT, MAX_DEVICE_ID_LENGTH, MAX_TIMEOUT, Status

COMMANDS: Final = "commands"
DEVICES: Final = "devices"
#: A table of the processor; Directus only shows it.
LAST_POSITIONS: Final = "last_positions"

#: Seconds from the creation of a command to its expiry, if its row has no ``expires_at``.
DEFAULT_EXPIRY: Final = 3600.0

#: Statuses of a row before its command has one.
PENDING: Final = "pending"
ROUTED: Final = "routed"
#: Status → label, icon and colour, in the order in which a row passes through them.
STATUSES: Final[Mapping[str, tuple[str, str, str]]] = {
    PENDING: ("Pending", "schedule", "#A2B5CD"),
    ROUTED: ("Routed", "alt_route", "#3399FF"),
    Status.DELIVERED.value: ("Delivered", "check", "#6644FF"),
    Status.RESPONDED.value: ("Responded", "done_all", "#2ECDA7"),
    Status.REJECTED.value: ("Rejected", "block", "#FFA439"),
    Status.FAILED.value: ("Failed", "error", "#E35169"),
    Status.EXPIRED.value: ("Expired", "timer_off", "#7A8B9A"),
}

#: Fields of a command that operators write, and those that only the bridge writes.
OPERATOR_FIELDS: Final = ("imei", "text", "hex", "codec", "expires_at", "timeout")
BRIDGE_FIELDS: Final = (
    *("status", "reason", "response", "instance"),
    *("routed_at", "delivered_at", "finished_at"),
)
#: Fields of a device that the bridge reads.
DEVICE_READ_FIELDS: Final = ("imei", "model", "vendor", "name", "enabled")

#: The header with the secret that authenticates Directus to the bridge.
SECRET_HEADER: Final = "X-Tracker-Secret"  # noqa: S105 - its name

_NAMESPACE: Final = UUID("3f0c1f3e-5f0e-4d37-9c55-5d1a6a0d7f11")


def own_id(name: str) -> str:
    """Return the fixed ID of a row of a system collection."""
    return str(uuid5(_NAMESPACE, name))


BRIDGE_POLICY: Final = own_id("policy bridge")
OPERATOR_POLICY: Final = own_id("policy operator")
BRIDGE_ROLE: Final = own_id("role bridge")
BRIDGE_USER: Final = own_id("user bridge")


@frozen
class Collection:
    """A collection with its fields in the form of ``POST /fields/{collection}``."""

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
    """True if other permissions of the policy are deleted."""


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

    :param kind: Directus' type of the field.
    :param interface: Directus' interface for the field.
    :param label: the label, if Directus does not derive a good one from the name.
    :param meta: further members of the field's ``meta``.
    """
    if label is not None:
        meta["translations"] = [{"language": "en-US", "translation": label}]
    meta = {"interface": interface, "options": options, "width": "half", **meta}
    return {"field": name, "type": kind, "meta": meta, "schema": schema or {}}


def _time(name: str, note: str, **meta: Any) -> Mapping[str, Any]:
    """Describe a time that only Directus or the bridge writes."""
    return _field(
        name,
        "timestamp",
        "datetime",
        **{"special": None, "readonly": True, "note": note, **meta},
        display="datetime",
        display_options={"relative": True},
    )


#: Conditions that hide fields that only the bridge or Directus writes, while they are empty.
_HIDDEN_UNTIL_ROUTED: Final = [
    {
        "name": "Not routed yet",
        "rule": {"_and": [{"status": {"_eq": PENDING}}, {"finished_at": {"_null": True}}]},
        "hidden": True,
    }
]
_HIDDEN_UNTIL_SAVED: Final = [
    {
        "name": "Not saved yet",
        "rule": {"_and": [{"date_created": {"_null": True}}]},
        "hidden": True,
    }
]
_REQUIRED_WITHOUT_HEX: Final = [
    {"name": "No bytes given", "rule": {"_and": [{"hex": {"_null": True}}]}, "required": True}
]
_USER_TEMPLATE: Final = "{{first_name}} {{last_name}}"
_STATUS_CHOICES: Final = [
    {"text": text, "value": value, "icon": icon, "color": color}
    for value, (text, icon, color) in STATUSES.items()
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
        schema={"max_length": MAX_DEVICE_ID_LENGTH, "is_nullable": False, "is_indexed": True},
        label="IMEI",
        required=True,
        note="The ID of the device, as on its label and in Devices.",
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
        note="The status of the command. The bridge sets it.",
    ),
    _field(
        "text",
        "text",
        "input-multiline",
        options={"placeholder": "getinfo", "font": "monospace"},
        schema={"is_nullable": True},
        label="Command",
        required=False,
        conditions=_REQUIRED_WITHOUT_HEX,
        width="full",
        note="The text of the command, in the form that the device expects, such as getinfo or "
        "setdigout 1. Leave it empty if you write bytes.",
    ),
    _field(
        "hex",
        "text",
        "input-multiline",
        options={"placeholder": "0A 0B FF", "font": "monospace"},
        label="Bytes",
        width="full",
        note="Instead of a text: the bytes of the command, as pairs of hex digits. The device "
        "receives exactly these bytes.",
    ),
    _field(
        "codec",
        "string",
        "select-dropdown",
        options={"choices": [], "allowNone": True, "placeholder": "The usual one"},
        schema={"max_length": 16},
        note="The encoding of the command. Default: the usual one of the device's vendor.",
    ),
    _field(
        "timeout",
        "integer",
        "input",
        options={"min": 1, "max": int(MAX_TIMEOUT), "placeholder": f"{DEFAULT_TIMEOUT:g}"},
        note=f"Seconds to wait for the device's answer. Default: {DEFAULT_TIMEOUT:g}.",
    ),
    _field(
        "expires_at",
        "timestamp",
        "datetime",
        display="datetime",
        display_options={"relative": True},
        note=(
            "The command is never sent to the device after this time. "
            f"Default: {DEFAULT_EXPIRY / 60:g} minutes after its creation."
        ),
    ),
    _field(
        "instance",
        "string",
        "input",
        options={"iconLeft": "dns"},
        schema={"max_length": 255},
        readonly=True,
        conditions=_HIDDEN_UNTIL_ROUTED,
        note="The ingest instance that handles the command.",
    ),
    _field(
        "response",
        "text",
        "input-multiline",
        options={"font": "monospace"},
        readonly=True,
        width="full",
        conditions=_HIDDEN_UNTIL_ROUTED,
        note="The answer of the device, or details of a failure.",
    ),
    _field(
        "reason",
        "text",
        "input-multiline",
        readonly=True,
        width="full",
        conditions=_HIDDEN_UNTIL_ROUTED,
        note="The reason why the command is waiting or has failed.",
    ),
    _time(
        "routed_at",
        "The time when an instance accepted the command.",
        conditions=_HIDDEN_UNTIL_ROUTED,
    ),
    _time(
        "delivered_at",
        "The time when the command was written to the device's connection.",
        conditions=_HIDDEN_UNTIL_ROUTED,
    ),
    _time("finished_at", "The time when the command ended.", conditions=_HIDDEN_UNTIL_ROUTED),
    _time(
        "date_created",
        "The time when the command was created.",
        special=["date-created"],
        label="Created At",
        conditions=_HIDDEN_UNTIL_SAVED,
    ),
    _field(
        "user_created",
        "uuid",
        "select-dropdown-m2o",
        options={"template": _USER_TEMPLATE},
        special=["user-created"],
        label="Created By",
        conditions=_HIDDEN_UNTIL_SAVED,
        readonly=True,
        display="user",
        note="The user who created the command.",
    ),
)

_DEVICE_FIELDS: Final = (
    _field(
        "imei",
        "string",
        "input",
        options={"iconLeft": "router", "placeholder": "356307042441013"},
        schema={"is_primary_key": True, "max_length": MAX_DEVICE_ID_LENGTH, "is_nullable": False},
        label="IMEI",
        required=True,
        note="The ID of the device, as on its label.",
    ),
    _field(
        "enabled",
        "boolean",
        "boolean",
        options={"label": "May connect"},
        schema={"default_value": True, "is_nullable": False},
        special=["cast-boolean"],
        display="boolean",
        note="If instances use the allow-list, they refuse devices that are not enabled.",
    ),
    _field(
        "name",
        "string",
        "input",
        options={"iconLeft": "local_shipping", "placeholder": "AA 123 BB"},
        schema={"max_length": 255},
        note="A name that people recognise, for example the number plate.",
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
        note="The model of the device. It determines the meaning of its attributes.",
    ),
    _field(
        "vendor",
        "string",
        "select-dropdown",
        options={"choices": [], "allowNone": True, "placeholder": "Any vendor"},
        schema={"max_length": 64, "is_nullable": True},
        note="The device is served only if it connects as a device of this vendor. Default: any.",
    ),
    _field(
        "notes",
        "text",
        "input-multiline",
        width="full",
    ),
    _time("date_created", "The time when the device was added.", special=["date-created"]),
    _time("date_updated", "The time of the last change of this row.", special=["date-updated"]),
)

#: Without what depends on the installed vendors, see :mod:`tracker.bridge.choices`.
COLLECTIONS: Final = (
    Collection(
        COMMANDS,
        {
            "icon": "send",
            "color": "#6644FF",
            "note": "Commands to devices, and their status",
            "display_template": "{{text}}{{hex}} → {{imei}}: {{status}}",
            "item_duplication_fields": ["imei", "text", "hex", "codec", "timeout"],
        },
        _COMMAND_FIELDS,
    ),
    Collection(
        DEVICES,
        {
            "icon": "router",
            "color": "#3399FF",
            "note": "The known devices",
            "display_template": "{{name}} {{imei}}",
        },
        _DEVICE_FIELDS,
    ),
)

#: The presentation of the processor's table in Directus.
LAST_POSITIONS_META: Final = {
    "icon": "location_on",
    "color": "#2ECDA7",
    "note": "The latest position of each device, written by Tracker",
    "display_template": "{{device_id}}: {{latitude}}, {{longitude}}",
    # The processor changes the rows all the time, and users cannot change them.
    "accountability": None,
}

#: Relations of fields to other collections, in the form of ``POST /relations``.
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
    """Return the policies of the bridge and of operators, who send commands.

    :param with_positions: True if ``last_positions`` is in the same database.
    """
    bridge = (
        _permission(COMMANDS, "read", ("id", *OPERATOR_FIELDS, *BRIDGE_FIELDS, "date_created")),
        _permission(COMMANDS, "update", BRIDGE_FIELDS),
        _permission(DEVICES, "read", DEVICE_READ_FIELDS),
    )
    operator = (
        _permission(COMMANDS, "read", ("*",)),
        _permission(COMMANDS, "create", OPERATOR_FIELDS),
        _permission(DEVICES, "read", ("*",)),
        # Without it, a row that another user has created opens with an error.
        _permission("directus_users", "read", ("id", "first_name", "last_name", "avatar")),
        *([_permission(LAST_POSITIONS, "read", ("*",))] if with_positions else []),
    )
    return (
        Policy(
            BRIDGE_POLICY,
            {
                "name": "Tracker bridge",
                "icon": "sync_alt",
                "description": "The permissions that twistd tracker bridge needs",
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
                "description": "The permissions of users who send commands to devices",
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
    "description": "The role of the bridge's user",
}
USER: Final[Mapping[str, Any]] = {
    "first_name": "Tracker",
    "last_name": "bridge",
    "role": BRIDGE_ROLE,
    "status": "active",
}
