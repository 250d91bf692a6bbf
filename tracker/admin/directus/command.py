"""The command line of ``directus setup`` and ``directus check``."""

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
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import output_option
from tracker.admin.output import printable
from tracker.admin.report import as_json, as_table, exit_code
from tracker.bridge.rest import (
    DirectusClient,
    DirectusDenied,
    DirectusError,
    DirectusUnreachable,
    checked_url,
)
from tracker.bridge.setup import Change, SetupOptions, apply, plan
from tracker.errors import RunFailed
from tracker.reactor import Reactor
from tracker.runtime.run import run
from tracker.wording import counted

DEFAULT_BRIDGE: Final = "http://127.0.0.1:9130/commands"
#: Seconds for each response. Directus is slow to change tables, and slower under load.
RESPONSE_TIMEOUT: Final = 60.0
#: Maximum number of plans that are applied. A plan that adds a table to Directus does not know the
#: table's fields; the next plan does.
_MAX_PLANS: Final = 4
_NO_CHANGE: Final = "Nothing to change."


@frozen
class _Target:
    """The options of both commands."""

    url: str
    token_file: Path
    token: str = field(repr=False)
    commands_url: str
    devices_url: str
    secret_file: Path | None
    bridge_token_file: Path | None

    async def with_client(
        self, reactor: Reactor, request: Callable[[DirectusClient], Awaitable[int]]
    ) -> int:
        """Call ``request`` with a client of the administrator, and return its exit code.

        :raises RunFailed: if Directus cannot be reached or used.
        """
        client = DirectusClient(reactor, self.url, self.token, timeout=RESPONSE_TIMEOUT)
        try:
            await self._check_rights(client)
            return await request(client)
        except DirectusUnreachable as error:
            raise RunFailed(f"Cannot reach {error}.", ExitCode.UNREACHABLE) from None
        except DirectusError as error:
            raise RunFailed(str(error)) from None
        finally:
            await client.close()

    async def _check_rights(self, client: DirectusClient) -> None:
        try:
            rights = await client.request("GET", "/policies/me/globals")
        except DirectusDenied:
            raise RunFailed(f"Directus refuses the token in {self.token_file}.") from None
        except DirectusError as error:
            if error.status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                raise RunFailed(f"{self.url} is not a Directus: {error}.") from None
            raise
        if not isinstance(rights, dict) or not rights.get("admin_access"):
            raise RunFailed(f"The token in {self.token_file} is not an administrator's.")


def _as_bridge(reactor: Reactor, url: str, token: str | None) -> DirectusClient | None:
    return DirectusClient(reactor, url, token, timeout=RESPONSE_TIMEOUT) if token else None


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option(
                "--url",
                "url",
                metavar="URL",
                envvar="DIRECTUS_URL",
                required=True,
                help="URL of Directus, such as http://127.0.0.1:8055.  [default: DIRECTUS_URL]",
            ),
            click.option(
                "--token-file",
                type=click.Path(path_type=Path),
                required=True,
                help="File with a static token of an administrator.",
            ),
            click.option(
                "--bridge-url",
                metavar="URL",
                default=DEFAULT_BRIDGE,
                show_default=True,
                help="URL that Flows call for new commands. For changed devices, they call the "
                "same URL with devices as its last part.",
            ),
            click.option(
                "--secret-file",
                type=click.Path(path_type=Path),
                help="File with the secret that Directus sends to the bridge.",
            ),
            click.option(
                "--bridge-token-file",
                type=click.Path(path_type=Path),
                help="File with the token that the bridge sends to Directus.",
            ),
        )
    ):
        command = option(command)
    return command


def _target(
    url: str,
    token_file: Path,
    *,
    bridge_url: str,
    secret_file: Path | None,
    bridge_token_file: Path | None,
) -> _Target:
    for option, value in (("--url", url), ("--bridge-url", bridge_url)):
        try:
            checked_url(value)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None
    if not urlsplit(bridge_url).path.rpartition("/")[2]:
        raise click.UsageError(f"--bridge-url: must be a URL with a path, such as {DEFAULT_BRIDGE}")
    token = _read("--token-file", token_file)
    devices_url = urljoin(bridge_url, "devices")
    return _Target(url, token_file, token, bridge_url, devices_url, secret_file, bridge_token_file)


def _read(option: str, file: Path) -> str:
    try:
        return read_secret(file)
    except OSError as error:
        raise click.UsageError(f"{option}: {file}: {error.strerror}") from None
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


@click.group()
def directus() -> None:
    """Set up or check Directus for the bridge."""


@directus.command()
@_options
@click.option("--dry-run", is_flag=True, help="Print the changes without making them.")
def setup(dry_run: bool, **options: Any) -> None:
    """Create in Directus what the bridge needs.

    Creates the collections commands and devices, two Flows that notify the bridge of new rows, a
    user with a Directus role and a policy for the bridge, and a policy for people who send
    commands. If the database has a table last_positions, Directus shows it read-only. Existing
    parts are completed, and a second run changes nothing.

    The files for the secret and the bridge's token are created if they do not exist.

    The exit code is 0 if everything is set up, 1 if something is missing (also with --dry-run),
    and 3 if Directus cannot be reached.
    """
    target = _target(**options)
    secret, token = (
        _secret(name, file, dry_run)
        for name, file in (
            ("--secret-file", target.secret_file),
            ("--bridge-token-file", target.bridge_token_file),
        )
    )
    wanted = SetupOptions(target.commands_url, target.devices_url, secret, token)

    async def main(reactor: Reactor) -> int:
        as_bridge = _as_bridge(reactor, target.url, token)

        async def carry_out(client: DirectusClient) -> int:
            if dry_run:
                return _print_plan(await plan(client, wanted, as_bridge))
            return await _carry_out(client, wanted, as_bridge)

        try:
            return await target.with_client(reactor, carry_out)
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
        return "not-created-yet"
    try:
        secret = make_secret(file)
    except OSError as error:
        raise click.UsageError(f"{option}: {file}: {error.strerror}") from None
    click.echo(f"+ file {file}")
    return secret


def _print_plan(changes: Sequence[Change]) -> int:
    for change in changes:
        click.echo(printable(change.text))
    click.echo(
        f"{counted(len(changes), 'change')} to make. Nothing was changed."
        if changes
        else _NO_CHANGE
    )
    return int(bool(changes))


async def _carry_out(
    client: DirectusClient, wanted: SetupOptions, as_bridge: DirectusClient | None
) -> int:
    done = 0
    for _ in range(_MAX_PLANS):
        changes = await plan(client, wanted, as_bridge)
        manual = [change for change in changes if change.manual]
        for change in manual or changes:
            if not change.manual:
                await _make(client, change)
                done += 1
            click.echo(printable(change.text))
        if manual or not changes:
            break
    else:
        raise RunFailed(f"Directus did not keep a change: {changes[0].text[2:]}.")
    if manual:
        click.echo(
            f"{counted(len(manual), 'change')} to make by hand in Directus. Then run setup again."
        )
        return 1
    click.echo(f"{counted(done, 'change')} made." if done else _NO_CHANGE)
    if wanted.secret is None and done:
        click.echo("No --secret-file given: new Flows send no secret to the bridge.")
    return 0


async def _make(client: DirectusClient, change: Change) -> None:
    try:
        await apply(client, change)
    except DirectusUnreachable:
        raise
    except DirectusError as error:
        raise RunFailed(f"Cannot change {change.text[2:]}: {error}.") from None


@directus.command()
@_options
@output_option
def check(output: str, **options: Any) -> None:
    """Check that Directus has what the bridge needs.

    Also checks that the bridge's token has the rights that it needs and no others. If the bridge
    is to run on this machine, checks that Flows can reach it. Nothing is changed.

    The exit code is 0 if no check failed (warnings are not failures), 1 if one did, and 3 if
    Directus cannot be reached.
    """
    target = _target(**options)
    secret = _read("--secret-file", target.secret_file) if target.secret_file else None
    token_file = target.bridge_token_file
    token = _read("--bridge-token-file", token_file) if token_file else None
    wanted = SetupOptions(target.commands_url, target.devices_url, secret, token)

    async def main(reactor: Reactor) -> int:
        as_bridge = _as_bridge(reactor, target.url, token)

        async def run_checks(client: DirectusClient) -> int:
            files = (target.token_file, target.secret_file, token_file)
            findings = await examine(reactor, client, wanted, as_bridge=as_bridge, files=files)
            click.echo(as_json(findings) if output == "json" else as_table(findings))
            return exit_code(findings)

        try:
            return await target.with_client(reactor, run_checks)
        finally:
            if as_bridge is not None:
                await as_bridge.close()

    run(main)
