"""Teltonika: the IMEI login and AVL frames of its GPRS protocol.

``login``, ``envelope`` and ``datagram`` find the boundaries of frames, ``avl``, ``codec7`` and
``messages`` read and write their data, and ``positions`` makes stream entries of them. They
perform no input or output. ``dialect`` and ``datagram_dialect`` are the server's side of the
protocol.

The remaining modules serve people who examine bytes, not devices: ``frames`` recognises any
frame by its first bytes, ``document`` and ``parsing`` convert frames to JSON and back, and
``dictionary`` has the names and scales of IO elements.
"""
