"""The command ``tracker``: ``twistd --nodaemon --pidfile= tracker`` under a name of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from twisted.application.service import ServiceMaker
from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]

from tracker.tap.command import Options


class ProgramOptions(Options):
    """The options of ``tracker``."""

    program = "tracker"
    longdesc = f"{Options.longdesc} tracker ROLE --help lists the options of a role."

    def getSynopsis(self) -> str:
        """Return the first line of the help, or what precedes the name of the role in it."""
        return "Usage: tracker" if self.subCommand else "Usage: tracker ROLE [options]"

    def getUsage(self, width: int | None = None) -> str:
        """Return the rest of the help."""
        return super().getUsage(width).replace("Commands:\n", "Roles:\n")


class _Twistd(ServerOptions):
    """The options of twistd, whose only command is ``tracker``; other plugins are not loaded."""

    @property
    def subCommands(self) -> Sequence[Any]:
        maker = ServiceMaker("Tracker", "tracker.tap", Options.longdesc, "tracker")
        self.loadedPlugins = {maker.tapname: maker}
        return [(maker.tapname, None, ProgramOptions, maker.description)]


def main() -> None:
    """Run the role that the command line names, in the foreground."""
    config = _Twistd()
    config.parseOptions(["--nodaemon", "--pidfile=", "tracker", *sys.argv[1:]])
    runApp(config)
