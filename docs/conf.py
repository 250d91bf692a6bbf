"""How Sphinx builds these pages: ``make docs``."""

from tracker import __version__

project = "Tracker"
version = release = __version__
extensions: list[str] = []
html_theme = "alabaster"
exclude_patterns = ["_build"]
