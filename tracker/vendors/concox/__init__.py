"""Concox: the GT06 protocol of Concox and Jimi IoT, and of devices of other makers that speak it.

``frames`` finds frames, ``fields`` and ``content`` read what they contain, and ``positions`` makes
stream entries of it. ``dialect`` is the server's side of the protocol, and ``commands`` its
commands. ``reports`` writes the frames of a device, for simulators and tests. They perform no
input or output.
"""
