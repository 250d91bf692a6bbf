"""Plugin of ``twistd tracker``."""

from twisted.application.service import ServiceMaker

tracker = ServiceMaker(
    "Tracker",
    "tracker.tap",
    "The telemetry plane of a GPS tracking platform.",
    "tracker",
)
