"""The group that all commands are in: its help, and how each of them may end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from tracker.admin.exitcodes import ExitCode
from tracker.admin.output import printable
from tracker.runtime.run import RunFailed

#: In click from 8.2: a group without a command, which shows its help.
_NoCommand: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class AdminGroup(click.Group):
    """Lists its commands in sections; tells what went wrong in one line, and by its status."""

    sections: Mapping[str, Mapping[str, str]] = {}

    def add_sections(self, sections: Mapping[str, Mapping[str, str]]) -> None:
        """Add commands whose modules are imported when the command is used or shown.

        :param sections: heading of the help → name of a command → its module, which has the
            command under that name, with underscores.
        """
        self.sections = {**self.sections, **sections}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        names = [name for commands in self.sections.values() for name in commands]
        return sorted([*super().list_commands(ctx), *names])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group."""
        for commands in self.sections.values():
            if module := commands.get(cmd_name):
                command: click.Command = getattr(import_module(module), cmd_name.replace("-", "_"))
                return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Group."""
        width = max(map(len, self.list_commands(ctx)))
        limit = formatter.width - 6 - width
        for heading, names in self.sections.items():
            rows = [
                (name.ljust(width), command.get_short_help_str(limit))
                for name in names
                if (command := self.get_command(ctx, name))
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run, and exit with one of :class:`ExitCode`."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        extra["standalone_mode"] = False
        raise SystemExit(int(self._status(args, extra)))

    def invoke(self, ctx: click.Context) -> Any:
        """See click.Group, which would take an output that nobody reads for a failure."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            raise SystemExit(int(ExitCode.NOT_READ)) from None
        except OSError as error:  # as when the disk is full that it is written to
            _discard_output()
            raise RunFailed(f"cannot go on: {error.strerror or error}") from None
        return result

    def _status(self, args: Any, extra: Any) -> int:
        try:
            result = super().main(*args, **extra)
        except _NoCommand as error:
            error.show()
            return ExitCode.BAD_USE
        except click.UsageError as error:
            hint = "" if error.ctx is None else f" (see {error.ctx.command_path} --help)"
            return _told(error.format_message() + hint, ExitCode.BAD_USE)
        except click.ClickException as error:
            return _told(error.format_message(), error.exit_code)
        except RunFailed as error:
            return _told(str(error), error.exit_code)
        except click.Abort:
            return ExitCode.INTERRUPTED
        return result if isinstance(result, int) else ExitCode.DONE


def _discard_output() -> None:
    """Whatever is still to be flushed goes nowhere, in silence."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(text: str, status: int) -> int:
    click.echo(f"tracker-admin: {printable(' '.join(text.split()))}", err=True)
    return status
