"""JSON lines: positions in a file or on standard output."""
