"""Health, metrics and log levels of a process, and findings of checks."""
