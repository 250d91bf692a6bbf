"""The doctor in the tests' own process, and its lines put to use."""

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
    """What it has found."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = findings

    def all(self, check: str) -> list[Finding]:
        """The findings of one check."""
        return [finding for finding in self.findings if finding.check == check]

    def one(self, check: str) -> Finding:
        """The only one."""
        (finding,) = self.all(check)
        return finding

    def worst(self, check: str) -> Finding:
        """The one that is not ok."""
        (finding,) = (one for one in self.all(check) if one.status is not Status.OK)
        return finding

    @property
    def bad(self) -> set[str]:
        """The checks that are neither ok nor about this machine."""
        return {
            finding.check
            for finding in self.findings
            if finding.status is not Status.OK and not finding.check.startswith("machine-")
        }


def words(finding: Finding) -> set[str]:
    """Return the names and numbers in what was found, among other words."""
    return {word.rstrip(":.") for word in re.findall(r"[\w:.-]+", finding.seen)}


async def examined(
    url: str,
    sink: str | None = None,
    ports: Sequence[tuple[str, int]] = (),
    seconds: float = 60.0,
) -> Report:
    """Ask for all there is."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    return Report(
        await examine(reactor, seconds, RedisAddress.from_url(url), sink=sink, ports=ports)
    )


def obey(redis: RedisServer, fix: str) -> None:
    """Do what a line says that calls redis-cli."""
    for line in fix.partition("  #")[0].split(" && "):
        words = shlex.split(line)
        assert words[:5] == ["redis-cli", "-h", "127.0.0.1", "-p", str(redis.port)]
        words = words[5:]
        while words[0].startswith("-"):
            words = words[1:]
        if words[:2] != ["CONFIG", "REWRITE"]:  # the tests' servers have no file
            redis.client.execute_command(*words)
