"""The JSON lines sink, which writes positions to a file or to standard output."""
