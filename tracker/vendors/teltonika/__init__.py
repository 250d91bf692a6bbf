"""Teltonika: the IMEI login and AVL frames of its GPRS protocol.

``login`` and ``frame`` delimit what is on the wire, ``avl`` reads and writes the
records in a frame, ``positions`` turns them into stream entries; they are pure.
``protocol`` holds the conversation with a device.
"""
