"""Measurements of Tracker: ``make bench``, or each module as a script, with ``--help``."""
