"""``tracker-admin doctor``: what is wrong with an installation, and what mends it.

A check is a function that looks at facts and returns findings; it changes nothing. Those
that only judge get the facts as arguments, and so need no server to be tried.
"""
