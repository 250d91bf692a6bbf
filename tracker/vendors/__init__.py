"""Protocols of device vendors: what all vendors share, and one package each.

A vendor package is pure: its codec modules turn bytes into values and back, and its dialects
turn frames into steps (see ``tracker.vendors.dialect``). Only its vendor module, the object that
the plugin in ``twisted/plugins/`` names, puts a dialect and the shared connection together. No
vendor imports another.
"""
