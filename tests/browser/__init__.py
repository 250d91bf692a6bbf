"""The console in a real browser: Debian's chromium, or the one in TRACKER_CHROMIUM.

`make test-browser` runs these. They leave screenshots in build/screenshots.
"""
