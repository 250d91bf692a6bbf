"""How a process starts, reports that it is ready, and stops."""
