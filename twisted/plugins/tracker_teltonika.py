from tracker.vendors.teltonika.vendor import Teltonika

teltonika = Teltonika()
