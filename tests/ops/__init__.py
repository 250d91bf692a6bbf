"""Tests of alerts, dashboard and metrics with a real promtool and Prometheus.

They need Debian's package ``prometheus``; ``make test-ops`` runs them.
"""
