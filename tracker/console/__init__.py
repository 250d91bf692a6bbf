"""The console: a web page that shows the state of the telemetry plane, and sends commands."""
