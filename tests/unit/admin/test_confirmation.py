"""The commands that ask before they do what cannot be undone."""

from __future__ import annotations

from collections.abc import Iterator

import click

from tracker.admin.cli import main


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield the name and the command of all commands below a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_commands_that_delete_unnamed_data_or_disconnect_all_devices_ask() -> None:
    asking = {
        name
        for name, command in commands(main)
        if any("--yes" in option.opts for option in command.params)
    }
    assert asking == {"dead drop", "drain", "skipped discard"}
