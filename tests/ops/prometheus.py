"""A real Prometheus, and promtool."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.process import OwnProcess
from tests.servers import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
RULES = ROOT / "ops" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "ops" / "grafana" / "tracker.json"


def promtool(*arguments: str, given: bytes = b"") -> str:
    """Run promtool, which has to succeed; return its output.

    :param given: its standard input.
    """
    ended = subprocess.run(
        ["promtool", *arguments],
        input=given,
        capture_output=True,
        check=False,
        timeout=60,
    )
    output = (ended.stdout + ended.stderr).decode()
    assert ended.returncode == 0, output
    return output


class Prometheus(OwnProcess):
    """A server that scrapes every second, with the rules of ``ops/``.

    :param targets: role → address that serves ``/metrics``, such as ``127.0.0.1:9131``.
    """

    def __init__(self, folder: Path, targets: dict[str, str]) -> None:
        super().__init__()
        self._folder = folder
        self._port = free_port()
        self._targets = targets

    def start(self) -> None:
        """Start the server, and wait until it has scraped every target."""
        config = self._folder / "prometheus.yml"
        # JSON is YAML.
        config.write_text(json.dumps(self._config()))
        promtool("check", "config", str(config))
        self._launch(
            self._folder / "prometheus.log",
            *("prometheus", f"--config.file={config}", "--log.level=warn"),
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        )
        wait_for(
            lambda: self.value('count(up{job="tracker"} == 1)') == len(self._targets),
            "all targets are scraped",
            timeout=60,
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the current series of an expression."""
        series: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return series

    def value(self, expression: str) -> float | None:
        """Return the value of an expression; None without a series, or before the server is up."""
        try:
            found = self.query(expression)
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules and the state of their evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **arguments: str) -> Any:
        query = urllib.parse.urlencode(arguments)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                reply = json.load(response)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # the server is starting
                raise
            raise AssertionError(f"{arguments}: {error.read().decode()}") from None
        assert reply["status"] == "success", reply
        assert not reply.get("warnings"), reply
        return reply["data"]

    def _config(self) -> dict[str, Any]:
        targets = [
            {"targets": [target], "labels": {"role": role}}
            for role, target in self._targets.items()
        ]
        return {
            "global": {
                "scrape_interval": "1s",
                "evaluation_interval": "1s",
                "external_labels": {"runbooks": "http://docs.example"},
            },
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "tracker", "static_configs": targets}],
        }
