"""The command ``completion``, which prints a completion script for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print a completion script for a shell.

    SHELL is bash, zsh or fish.

    \b
    Examples, for ~/.bashrc, ~/.zshrc, and ~/.config/fish/config.fish:
      eval "$(tracker-admin completion bash)"
      eval "$(tracker-admin completion zsh)"
      tracker-admin completion fish | source
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click has all three
    program = "tracker-admin"
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, program, "_TRACKER_ADMIN_COMPLETE").source())
