"""Plugin of the vendor Teltonika."""

from tracker.vendors.teltonika.vendor import Teltonika

teltonika = Teltonika()
