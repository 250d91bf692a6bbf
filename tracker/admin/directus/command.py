"""``tracker-admin directus``: the command line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import click
from attrs import field, frozen

from tracker.admin.directus.checkup import examine
from tracker.admin.directus.files import make_secret, read_secret
from tracker.admin.options import output_option
from tracker.admin.output import printable
from tracker.admin.report import as_json, as_table, exit_status
from tracker.bridge.rest import (
    DirectusClient,
    DirectusDenied,
    DirectusDown,
    DirectusError,
    checked_url,
)
from tracker.bridge.setup import Change, SetupOptions, apply, plan
from tracker.reactor import Reactor
from tracker.runtime.run import RunFailed, run

DEFAULT_BRIDGE: Final = "http://127.0.0.1:9130/commands"
#: Seconds for each answer: Directus takes its time to change tables, and more when it is busy.
ANSWERED: Final = 60.0
#: The status when Directus cannot be reached.
UNREACHABLE: Final = 3
#: Plans that are carried out; one shows Directus a table, the next one sees its fields.
_MOST_PLANS: Final = 4


@frozen
class _Place:
    """The options of both commands."""

    url: str
    token_file: Path
    token: str = field(repr=False)
    commands_url: str
    devices_url: str
    secret_file: Path | None
    bridge_token_file: Path | None

    async def asking(
        self, reactor: Reactor, ask: Callable[[DirectusClient], Awaitable[int]]
    ) -> int:
        """Call ``ask`` with a client of the administrator.

        :return: its status, or that of an error, which is printed.
        """
        client = DirectusClient(reactor, self.url, self.token, timeout=ANSWERED)
        try:
            await self._check_rights(client)
            return await ask(client)
        except DirectusDown as error:
            click.echo(f"tracker-admin: {error}", err=True)
            # Any HTTP answer counts as one.
            return UNREACHABLE if error.status is None else 1
        except DirectusError as error:
            raise RunFailed(str(error)) from None
        finally:
            await client.close()

    async def _check_rights(self, client: DirectusClient) -> None:
        try:
            rights = await client.request("GET", "/policies/me/globals")
        except DirectusDenied:
            raise RunFailed(f"Directus does not accept the token in {self.token_file}") from None
        except DirectusError as error:
            if error.status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                raise RunFailed(f"no Directus answers at {self.url}: {error}") from None
            raise
        if not isinstance(rights, dict) or not rights.get("admin_access"):
            raise RunFailed(f"the token in {self.token_file} is not an administrator's")


def _as_bridge(reactor: Reactor, url: str, token: str | None) -> DirectusClient | None:
    return DirectusClient(reactor, url, token, timeout=ANSWERED) if token else None


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option(
                "--url",
                "url",
                metavar="URL",
                envvar="DIRECTUS_URL",
                required=True,
                help="Where Directus is, as http://127.0.0.1:8055.  [default: DIRECTUS_URL]",
            ),
            click.option(
                "--token-file",
                type=click.Path(path_type=Path),
                required=True,
                help="A file with a static token of an administrator.",
            ),
            click.option(
                "--bridge-url",
                metavar="URL",
                default=DEFAULT_BRIDGE,
                show_default=True,
                help="Where the bridge hears of new commands; of devices it hears beside that.",
            ),
            click.option(
                "--secret-file",
                type=click.Path(path_type=Path),
                help="A file with the secret by which the bridge knows Directus.",
            ),
            click.option(
                "--bridge-token-file",
                type=click.Path(path_type=Path),
                help="A file with the token by which Directus knows the bridge.",
            ),
        )
    ):
        command = option(command)
    return command


def _place(
    url: str,
    token_file: Path,
    *,
    bridge_url: str,
    secret_file: Path | None,
    bridge_token_file: Path | None,
) -> _Place:
    for option, value in (("--url", url), ("--bridge-url", bridge_url)):
        try:
            checked_url(value)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None
    if not urlsplit(bridge_url).path.rpartition("/")[2]:
        raise click.UsageError(f"--bridge-url: must be like {DEFAULT_BRIDGE}")
    token = _read("--token-file", token_file)
    devices_url = urljoin(bridge_url, "devices")
    return _Place(url, token_file, token, bridge_url, devices_url, secret_file, bridge_token_file)


def _read(option: str, file: Path) -> str:
    try:
        return read_secret(file)
    except OSError as error:
        raise click.UsageError(f"{option}: {file}: {error.strerror}") from None
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


@click.group()
def directus() -> None:
    """Prepare Directus for the bridge, or check that it is."""


@directus.command()
@_options
@click.option("--dry-run", is_flag=True, help="Only print what is different.")
def setup(dry_run: bool, **options: Any) -> None:
    """Make in Directus what the bridge needs, and complete what is there.

    These are the collections commands and devices, two Flows that tell the bridge of what is
    new, a user with a role and a policy for the bridge, and a policy for people who send
    commands. A table last_positions in the same database is shown, read-only. What is there
    already stays; run again, it changes nothing.

    The files of the secret and of the bridge's token are made when they are missing.

    The status is 0 when all is as it has to be, 1 when something is not (with --dry-run: not
    yet), 2 for a command line that is not understood, 3 when Directus cannot be reached.
    """
    place = _place(**options)
    secret, token = (
        _secret(name, file, dry_run)
        for name, file in (
            ("--secret-file", place.secret_file),
            ("--bridge-token-file", place.bridge_token_file),
        )
    )
    wanted = SetupOptions(place.commands_url, place.devices_url, secret, token)

    async def main(reactor: Reactor) -> int:
        as_bridge = _as_bridge(reactor, place.url, token)

        async def carry_out(client: DirectusClient) -> int:
            if dry_run:
                return _tell(await plan(client, wanted, as_bridge))
            return await _carry_out(client, wanted, as_bridge)

        try:
            return await place.asking(reactor, carry_out)
        finally:
            if as_bridge is not None:
                await as_bridge.close()

    run(main)


def _secret(option: str, file: Path | None, dry_run: bool) -> str | None:
    if file is None:
        return None
    if file.exists():
        return _read(option, file)
    if dry_run:
        click.echo(f"+ file {file}")
        return "one-that-nobody-has-made-yet"
    try:
        secret = make_secret(file)
    except OSError as error:
        raise click.UsageError(f"{option}: {file}: {error.strerror}") from None
    click.echo(f"+ file {file}")
    return secret


def _tell(changes: Sequence[Change]) -> int:
    for change in changes:
        click.echo(printable(change.text))
    click.echo(f"{len(changes)} to change, and nothing was" if changes else "nothing to change")
    return int(bool(changes))


async def _carry_out(
    client: DirectusClient, wanted: SetupOptions, as_bridge: DirectusClient | None
) -> int:
    made = 0
    for _ in range(_MOST_PLANS):
        changes = await plan(client, wanted, as_bridge)
        manual = [change for change in changes if change.manual]
        for change in manual or changes:
            if not change.manual:
                await _make(client, change)
                made += 1
            click.echo(printable(change.text))
        if manual or not changes:
            break
    else:
        raise RunFailed(f"Directus does not keep what it is told: {changes[0].text[2:]}")
    if manual:
        click.echo(f"{len(manual)} to be changed by hand, in Directus, before anything else is")
        return 1
    click.echo(f"{made} changed" if made else "nothing to change")
    if wanted.secret is None and made:
        click.echo("no --secret-file was given: new Flows say no secret to the bridge")
    return 0


async def _make(client: DirectusClient, change: Change) -> None:
    try:
        await apply(client, change)
    except DirectusDown:
        raise
    except DirectusError as error:
        raise RunFailed(f"{change.text[2:]}: {error}") from None


@directus.command()
@_options
@output_option
def check(output: str, **options: Any) -> None:
    """Check that Directus holds what the bridge needs.

    Also that the bridge's token may do what it must and nothing else, and, where the bridge
    is to run on this machine, that Directus lets its Flows reach it. Changes nothing.

    The status is 0 when nothing has failed (a warning is no failure), 1 when a check has, 2
    for a command line that is not understood, 3 when Directus cannot be reached.
    """
    place = _place(**options)
    secret = _read("--secret-file", place.secret_file) if place.secret_file else None
    token_file = place.bridge_token_file
    token = _read("--bridge-token-file", token_file) if token_file else None
    wanted = SetupOptions(place.commands_url, place.devices_url, secret, token)

    async def main(reactor: Reactor) -> int:
        as_bridge = _as_bridge(reactor, place.url, token)

        async def look(client: DirectusClient) -> int:
            files = (place.token_file, place.secret_file, token_file)
            findings = await examine(reactor, client, wanted, as_bridge=as_bridge, files=files)
            click.echo(as_json(findings) if output == "json" else as_table(findings))
            return exit_status(findings)

        try:
            return await place.asking(reactor, look)
        finally:
            if as_bridge is not None:
                await as_bridge.close()

    run(main)
