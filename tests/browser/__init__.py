"""Tests of the console in Chromium: Debian's, or the one in TRACKER_CHROMIUM.

``make test-browser`` runs these tests. They write screenshots to build/screenshots.
"""
