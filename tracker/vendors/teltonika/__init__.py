"""Teltonika: the IMEI login and AVL frames of its GPRS protocol.

``login`` and ``frame`` delimit what is on the wire, ``avl`` reads and writes the
records in a frame, ``positions`` turns them into stream entries; they are pure.
``protocol`` holds the conversation with a device.

For those who look at bytes: ``units`` tells by its first bytes what something is,
``document`` and ``parsing`` are its form in JSON, both ways, ``dictionary`` knows names
and scales of IO elements. They are pure, too, and no part of serving devices.
"""
