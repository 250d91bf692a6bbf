"""Protocols of device vendors: one package each, and none imports another.

A vendor package holds codec modules, which turn bytes into values and back and
import nothing of Twisted, one protocol module, and one vendor module: the object
that the plugin in ``twisted/plugins/`` names.
"""
