"""The click group of all commands: its help, and the exit codes of its commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from tracker.admin.exitcodes import ExitCode
from tracker.errors import RunFailed

#: Raised by click since 8.2 for a group without a command; it shows the help.
_NoCommand: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class AdminGroup(click.Group):
    """A group that lists its commands in sections, and reports an error in one line."""

    sections: Mapping[str, Mapping[str, str]] = {}

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        _mark_examples(self)

    def add_sections(self, sections: Mapping[str, Mapping[str, str]]) -> None:
        """Add commands whose modules are imported when a command is used or shown.

        :param sections: heading in the help → name of a command → its module, in which the
            command has that name, with underscores.
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
                _mark_examples(command)
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
        """Run a command and exit with its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        if (instruction := os.environ.get("_TRACKER_ADMIN_COMPLETE")) is not None:
            from tracker.admin.suggestions import complete

            if complete(instruction):
                raise SystemExit(int(ExitCode.DONE))
        extra["standalone_mode"] = False
        raise SystemExit(int(self._exit_code(args, extra)))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and report errors of its output.

        Without this, click exits with 1 when the reader closes the output.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            raise SystemExit(int(ExitCode.OUTPUT_CLOSED)) from None
        except OSError as error:  # such as a full disk
            _discard_output()
            raise RunFailed(f"Cannot continue: {error.strerror or error}.") from None
        return result

    def _exit_code(self, args: Any, extra: Any) -> int:
        try:
            result = super().main(*args, **extra)
        except _NoCommand as error:
            error.show()
            return ExitCode.BAD_USAGE
        except click.UsageError as error:
            hint = "" if error.ctx is None else f" See {error.ctx.command_path} --help."
            return _print_sentence(_usage_message(error), ExitCode.BAD_USAGE, hint)
        except click.ClickException as error:  # an offset in the input, and its fault
            return _print_error(error.format_message(), error.exit_code)
        except RunFailed as error:
            return _print_sentence(str(error), error.exit_code)
        except click.Abort:
            return ExitCode.INTERRUPTED
        return result if isinstance(result, int) else ExitCode.DONE


def _usage_message(error: click.UsageError) -> str:
    """Return the message of an error, or where an option must stand that follows its command."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        root = error.ctx.find_root()
        if any(error.option_name in one.opts for one in root.command.params):
            command = error.ctx.command_path.removeprefix(root.command_path).strip()
            example = f"{root.command_path} {error.option_name} … {command}"
            return f"{error.option_name} must precede the command: {example}"
    return error.format_message()


def _mark_examples(command: click.Command) -> None:
    r"""Replace ``\b`` in the help of a command and its subcommands by the backspace that it means.

    Click does not wrap a paragraph below a backspace. Docstrings are raw, so they hold ``\b``.
    """
    if command.help:
        command.help = command.help.replace(r"\b", "\b")
    for subcommand in getattr(command, "commands", {}).values():
        _mark_examples(subcommand)


def _discard_output() -> None:
    """Redirect standard output to /dev/null, so that a later flush does not fail again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_sentence(text: str, exit_code: int, hint: str = "") -> int:
    from tracker.admin.output import sentence

    return _print_error(sentence(text) + hint, exit_code)


def _print_error(text: str, exit_code: int) -> int:
    # Only here, since --version and completion must not wait for the import of rich.
    from tracker.admin.output import printable

    click.echo(f"tracker-admin: {printable(' '.join(text.split()))}", err=True)
    return exit_code
