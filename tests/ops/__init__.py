"""What is made for operators, tried with what they run it on: promtool and Prometheus.

These need the package ``prometheus`` of Debian, so ``make test-ops`` runs them.
"""
