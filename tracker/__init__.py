"""The telemetry plane of a GPS tracking platform.

Device connections end in :mod:`tracker.vendors`, records become durable in
:mod:`tracker.ingestion`, and reach the database in :mod:`tracker.processing`.
``docs/architecture.rst`` describes the whole way of a record.
"""

__version__ = "0.1.0"
