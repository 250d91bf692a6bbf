"""The contract of vendors: one suite for all that are installed."""
