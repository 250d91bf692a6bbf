"""``tracker-admin doctor``: check an installation, and suggest fixes.

A check is a function that examines facts and returns findings; it changes nothing. Functions named
``judge_…`` get the facts as arguments, and so can be tested without a server.
"""
