"""The command ``doctor``, which checks an installation and suggests fixes.

A check is a function that examines facts and returns findings; it changes nothing. Functions named
``judge_…`` get the facts as arguments, so that they can be tested without a server.
"""
