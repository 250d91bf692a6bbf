"""``tracker-admin console-operator``: who may log in to the console."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tracker.admin.options import output_option
from tracker.admin.output import echo_table
from tracker.console.operators import (
    PERMISSIONS,
    InvalidOperatorsFile,
    Operator,
    PasswordHash,
    checked_name,
    checked_password,
    read_operators,
    write_operators,
)
from tracker.runtime.run import RunFailed

_file = click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file that the console is given with --operators.",
)


class _Name(click.ParamType):  # type: ignore[type-arg]
    name = "NAME"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        return _told(self, checked_name, value)


def _told(kind: click.ParamType, check: Callable[[str], str], value: str) -> str:  # type: ignore[type-arg]
    try:
        return check(value)
    except ValueError as error:
        kind.fail(str(error))


@click.group("console-operator")
def console_operator() -> None:
    """Say who may log in to the console.

    A console that runs heeds a change at once; whoever is removed, or is given another
    password, is logged out.

    \b
    Examples:
      tracker-admin console-operator add --file /etc/tracker/operators anna
      tracker-admin console-operator list --file /etc/tracker/operators
    """


@console_operator.command()
@_file
@click.option(
    "--permission",
    type=click.Choice(PERMISSIONS),
    default="operate",
    show_default=True,
    help="May look, or look and send commands.",
)
@click.argument("name", type=_Name())
def add(path: Path, permission: str, name: str) -> None:
    """Add an operator, or give one another permission and password.

    The password is asked for; without a terminal it is the first line of standard input.
    The file is made where it is missing.
    """
    operators = _read(path) if path.exists() else {}
    try:
        password = checked_password(_password())
    except ValueError as error:
        raise RunFailed(str(error)) from None
    there = name in operators
    operators[name] = Operator(name, permission, PasswordHash.of(password))
    _write(path, operators)
    click.echo(f"{name} ({permission}) {'changed' if there else 'added'}")


@console_operator.command()
@_file
@click.argument("name", type=_Name())
def remove(path: Path, name: str) -> None:
    """Remove an operator, who is logged out."""
    operators = _read(path)
    if operators.pop(name, None) is None:
        raise RunFailed(f"{path}: there is no {name}")
    _write(path, operators)
    click.echo(f"{name} removed")


@console_operator.command("list")
@_file
@output_option
def list_(path: Path, output: str) -> None:
    """List the operators."""
    operators = sorted(_read(path).values(), key=lambda one: one.name)
    if output == "json":
        click.echo(
            json.dumps(
                [{"name": one.name, "permission": one.permission} for one in operators], indent=2
            )
        )
    else:
        echo_table([("NAME", "PERMISSION"), *((one.name, one.permission) for one in operators)])


def _password() -> str:
    if sys.stdin.isatty():
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt="Once more")
        return given
    return sys.stdin.readline().rstrip("\n")


def _read(path: Path) -> dict[str, Operator]:
    try:
        return read_operators(path)
    except InvalidOperatorsFile as error:
        raise RunFailed(str(error)) from None


def _write(path: Path, operators: dict[str, Operator]) -> None:
    try:
        write_operators(path, operators)
    except OSError as error:
        raise RunFailed(f"{path}: {error.strerror}") from None
