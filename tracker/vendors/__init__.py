"""Protocols of device vendors: the code that all vendors share, and one package for each vendor.

A vendor package is pure: its codec modules turn bytes into values and back, and its dialects
turn frames into steps (see ``tracker.vendors.dialect``). Only its vendor module, the object that
the plugin in ``twisted/plugins/`` names, combines a dialect with the shared connection. No vendor
imports another.
"""
