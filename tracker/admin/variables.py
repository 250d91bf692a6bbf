"""Environment variables and files with the settings of ``tracker-admin``."""

from __future__ import annotations

from typing import Final

#: Default paths of the configuration file, of which the first that exists is read.
FILES: Final = ("~/.config/tracker-admin.conf", "/etc/tracker/admin.conf")
FILE_VARIABLE: Final = "TRACKER_ADMIN_CONFIG"
CONTROL_VARIABLE: Final = "TRACKER_CONTROL"
REDIS_VARIABLE: Final = "REDIS_URL"
