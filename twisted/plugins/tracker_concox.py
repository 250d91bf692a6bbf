"""Plugin of the vendor Concox."""

from tracker.vendors.concox.vendor import Concox

concox = Concox()
