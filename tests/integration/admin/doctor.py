"""Run the doctor in the process of the tests, and apply its fixes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from tests.servers import RedisServer
from tracker.admin.doctor.checkup import examine
from tracker.observe.findings import Finding, Status
from tracker.redis.address import RedisAddress

STREAM = "telemetry:teltonika"


class Report:
    """The findings of the doctor."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = findings

    def all(self, check: str) -> list[Finding]:
        """Return the findings of a check."""
        return [finding for finding in self.findings if finding.check == check]

    def one(self, check: str) -> Finding:
        """Return the only finding of a check."""
        (finding,) = self.all(check)
        return finding

    def worst(self, check: str) -> Finding:
        """Return the only finding of a check that is not ok."""
        (finding,) = (one for one in self.all(check) if one.status is not Status.OK)
        return finding

    @property
    def bad(self) -> set[str]:
        """The names of checks with findings that are not ok, except those of this machine."""
        return {
            finding.check
            for finding in self.findings
            if finding.status is not Status.OK and not finding.check.startswith("machine-")
        }


def words(finding: Finding) -> set[str]:
    """Return the words of a finding, which include names and numbers."""
    return {word.rstrip(":.") for word in re.findall(r"[\w:.-]+", finding.seen)}


async def examined(
    url: str,
    sink: str | None = None,
    ports: Sequence[tuple[str, int]] = (),
    seconds: float = 60.0,
) -> Report:
    """Run all checks."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    return Report(
        await examine(reactor, seconds, RedisAddress.from_url(url), sink=sink, ports=ports)
    )


def apply_fix(redis: RedisServer, fix: str) -> None:
    """Run the commands of a fix that calls redis-cli."""
    for line in fix.partition("  #")[0].split(" && "):
        words = shlex.split(line)
        assert words[:5] == ["redis-cli", "-h", "127.0.0.1", "-p", str(redis.port)]
        words = words[5:]
        while words[0].startswith("-"):
            words = words[1:]
        if words[:2] != ["CONFIG", "REWRITE"]:  # servers of tests have no configuration file
            redis.client.execute_command(*words)
