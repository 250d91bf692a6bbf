"""Plugin of the vendor Queclink."""

from tracker.vendors.queclink.vendor import Queclink

queclink = Queclink()
