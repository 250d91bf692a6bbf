"""The commands ``console-operator add``, ``remove`` and ``list``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from tracker.admin.options import output_option
from tracker.admin.output import Column, show_rows
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
from tracker.errors import RunFailed

OPERATOR: Final = (Column("name"), Column("permission"))

_file = click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Operators file of the console (its option --operators).",
)


class _Name(click.ParamType):  # type: ignore[type-arg]
    name = "NAME"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        return _checked(self, checked_name, value)


def _checked(kind: click.ParamType, check: Callable[[str], str], value: str) -> str:  # type: ignore[type-arg]
    try:
        return check(value)
    except ValueError as error:
        kind.fail(f"{error}.")


@click.group("console-operator")
def console_operator() -> None:
    r"""Manage the operators of the console.

    A running console applies a change at once. An operator who is removed or gets a new password
    is logged out.

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
    help="Only read, or read and send commands.",
)
@click.argument("name", type=_Name())
def add(path: Path, permission: str, name: str) -> None:
    """Add an operator, or change the permission and password of one.

    You are asked for the password. If standard input is not a terminal, the password is its first
    line. The file is created if it does not exist.
    """
    operators = _read(path) if path.exists() else {}
    try:
        password = checked_password(_password())
    except ValueError as error:
        raise RunFailed(f"Invalid password: {error}.") from None
    exists = name in operators
    operators[name] = Operator(name, permission, PasswordHash.of(password))
    _write(path, operators)
    click.echo(f"Operator {name} ({permission}) {'changed' if exists else 'added'}.")


@console_operator.command()
@_file
@click.argument("name", type=_Name())
def remove(path: Path, name: str) -> None:
    """Remove an operator and log the operator out."""
    operators = _read(path)
    if operators.pop(name, None) is None:
        raise RunFailed(f"Operator {name} not found in {path}.")
    _write(path, operators)
    click.echo(f"Operator {name} removed.")


@console_operator.command("list")
@_file
@output_option
def list_(path: Path, output: str) -> None:
    """List the operators."""
    operators = sorted(_read(path).values(), key=lambda one: one.name)
    rows = [{"name": one.name, "permission": one.permission} for one in operators]
    show_rows(OPERATOR, rows, output, empty=f"No operators in {path}.")


def _password() -> str:
    if sys.stdin.isatty():
        given: str = click.prompt(
            "Password", hide_input=True, confirmation_prompt="Repeat password"
        )
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
        raise RunFailed(f"Cannot write {path}: {error.strerror}.") from None
