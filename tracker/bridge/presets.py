"""The default layout of lists in Directus' app, as Directus' API takes it."""

from __future__ import annotations

from typing import Final

from tracker.bridge.schema import COMMANDS, LAST_POSITIONS

#: Seconds after which Directus' app reloads a list; one of the choices that the app offers.
REFRESH: Final = 10

#: Presets for all users without one of their own: the newest rows first, with automatic reload.
PRESETS: Final = (
    {
        "collection": COMMANDS,
        "layout": "tabular",
        "layout_query": {
            "tabular": {
                "fields": ["status", "imei", "text", "hex", "reason", "response", "date_created"],
                "sort": ["-date_created"],
            }
        },
        "layout_options": {
            "tabular": {
                "spacing": "compact",
                "widths": {
                    "status": 130,
                    "imei": 170,
                    "text": 160,
                    "hex": 120,
                    "response": 240,
                    "reason": 110,
                    "date_created": 160,
                },
            }
        },
        "refresh_interval": REFRESH,
    },
    {
        "collection": LAST_POSITIONS,
        "layout": "tabular",
        "layout_query": {
            "tabular": {
                "fields": ["device_id", "last_contact", "latitude", "longitude", "speed"],
                "sort": ["-last_contact"],
            }
        },
        "layout_options": {
            "tabular": {"spacing": "compact", "widths": {"device_id": 170, "last_contact": 170}}
        },
        "refresh_interval": REFRESH,
    },
)
