"""Start, readiness reports and stop of a process; waits and retries."""
