"""Teltonika: the IMEI login and AVL frames of its GPRS protocol.

``login`` and ``frame`` delimit what is on the wire, ``avl`` reads and writes the
records in a frame, ``positions`` turns them into stream entries; they are pure.
``dialect`` and ``datagram_dialect`` are the server's side of the protocol.

For people who examine bytes: ``units`` recognises a unit by its first bytes, ``document`` and
``parsing`` convert it to JSON and back, and ``dictionary`` has names and scales of IO elements.
They are pure, too, and not used for serving devices.
"""
