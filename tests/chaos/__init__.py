"""Random faults against the whole path, with an account of every record and command.

``make test-chaos`` runs it; ``python -m tests.chaos --help`` lists its options.
"""
