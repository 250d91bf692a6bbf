"""Benchmarks of Tracker. ``make bench`` runs all; each module is also a script with ``--help``."""
