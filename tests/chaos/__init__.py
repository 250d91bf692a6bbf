"""Inject random faults into a whole site, and account for every record and command.

``make test-chaos`` runs it; ``python -m tests.chaos --help`` lists its options.
"""
