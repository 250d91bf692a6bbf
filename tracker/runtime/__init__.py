"""Start, readiness reports and stop of a process, with its waits and retries."""
