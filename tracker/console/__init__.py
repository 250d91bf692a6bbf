"""The console: one page that shows what the telemetry plane does, and sends commands."""
