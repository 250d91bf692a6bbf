"""The vendor of the page "Write a vendor", as the page has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"^\.\. code-block:: python\n   :caption: (?P<path>\S+)\n\n(?P<code>(?:   .*\n|\n)+)", re.M
)


def test_vendor_of_the_page_passes_the_contract_suite(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "vendors.rst").read_text()
    paths = []
    for block in BLOCK.finditer(page):
        path = tmp_path / block["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(block["code"]).strip() + "\n")
        paths.append(block["path"])
    (tmp_path / "acme" / "__init__.py").touch()
    assert "twisted/plugins/tracker_acme.py" in paths
    options = ("-q", "-p", "no:cacheprovider", "-k", "acme and not page")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/vendors"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    # Each test of the suite ran, except those for vendors with datagrams.
    found = re.search(r"([0-9]+) passed", ran.stdout)
    assert found is not None
    assert int(found[1]) >= 18
    assert "skipped" not in ran.stdout
