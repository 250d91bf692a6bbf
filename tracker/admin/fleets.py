"""The commands ``simulate`` and ``demo``, which run fleets of simulated devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import click
from attrs import frozen
from click.shell_completion import CompletionItem
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import Duration
from tracker.admin.vendors import VendorName, tools
from tracker.durations import format_duration
from tracker.errors import RunFailed
from tracker.net.endpoints import connecting_endpoint
from tracker.reactor import Reactor
from tracker.runtime.run import run
from tracker.simulator.demo import Demo, Share
from tracker.simulator.device import ANSWER_DELAY, Answers, Behaviour
from tracker.simulator.fleet import IMEI_COUNT, CommandJournal, Fleet, Journal
from tracker.simulator.run import NoConnection, run_fleet
from tracker.untrusted import listed
from tracker.vendors.simulation import Simulation
from tracker.vendors.tools import simulation_of
from tracker.wording import counted

#: The vendor of devices if none is given, and of most devices of the demo.
_USUAL = "teltonika"


@frozen
class FleetOptions:
    """The options of a fleet."""

    interval: float
    records: int
    codec: str | None
    answers: Answers
    answer_delay: float
    heartbeat: float | None

    def suited_to(self, simulation: Simulation) -> FleetOptions:
        """Return the options without those that the devices of a vendor do not have."""
        has_codec = self.codec is not None and self.codec.upper() in _upper(simulation.codecs)
        has_refusal = simulation.refuses or self.answers is not Answers.REFUSE
        return FleetOptions(
            max(self.interval, simulation.resolution),
            min(self.records, simulation.max_records),
            self.codec if has_codec else None,
            self.answers if has_refusal else Answers.MUTE,
            self.answer_delay,
            self.heartbeat if simulation.heartbeat_interval else None,
        )

    def check_codec(self, simulations: Mapping[str, Simulation]) -> None:
        """Check that a vendor's devices have the codec.

        :param simulations: vendor → simulation of its devices.
        :raises click.UsageError: if none has it.
        """
        codecs = [codec for simulation in simulations.values() for codec in simulation.codecs]
        if self.codec is not None and self.codec.upper() not in _upper(codecs):
            raise click.UsageError(f"--codec {self.codec}: the devices have {listed(codecs)}.")

    def behaviour(self, vendor: str, simulation: Simulation) -> Behaviour:
        """Return the behaviour of a vendor's devices.

        :raises click.UsageError: if the devices of the vendor do not have an option.
        """
        codec = (self.codec or simulation.codecs[0]).upper()
        names = _upper(simulation.codecs)
        if codec not in names:
            raise click.UsageError(
                f"--codec {self.codec}: {vendor} devices have {listed(simulation.codecs)}."
            )
        if self.records > simulation.max_records:
            most = counted(simulation.max_records, "record")
            raise click.UsageError(
                f"--records {self.records}: a frame of {vendor} devices has at most {most}."
            )
        if self.interval < simulation.resolution:
            raise click.UsageError(
                f"--interval {format_duration(self.interval)}: the minimum of {vendor} devices is "
                f"{format_duration(simulation.resolution)}."
            )
        if self.answers is Answers.REFUSE and not simulation.refuses:
            raise click.UsageError(
                f"--answers refuse: {vendor} devices cannot refuse a command. Use --answers mute."
            )
        if self.heartbeat is not None and not simulation.heartbeat_interval:
            raise click.UsageError(f"--heartbeat: {vendor} devices send no heartbeats.")
        return Behaviour(
            simulation,
            names[codec],
            self.interval,
            self.records,
            answers=self.answers,
            answer_delay=self.answer_delay,
            heartbeat_interval=self.heartbeat,
        )


def _upper(codecs: Iterable[str]) -> dict[str, str]:
    """Return upper-case name → name of codecs."""
    return {codec.upper(): codec for codec in codecs}


def _complete_codec(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    vendor = context.params.get("vendor")
    return [
        CompletionItem(codec)
        for simulation in tools(simulation_of, vendor).values()
        for codec in simulation.codecs
        if codec.startswith(incomplete.upper())
    ]


def _fleet_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a fleet, passed to the command as ``count`` and ``options``."""

    def with_options(
        *,
        devices: int,
        interval: float,
        records: int,
        codec: str | None,
        answers: str,
        answer_delay: float,
        heartbeat: float | None,
        **others: Any,
    ) -> None:
        options = FleetOptions(interval, records, codec, Answers(answers), answer_delay, heartbeat)
        command(count=devices, options=options, **others)

    with_options.__doc__ = command.__doc__
    with_options.__name__ = command.__name__
    decorated: Callable[..., Any] = with_options
    for option in (
        click.option(
            "--seconds",
            type=Duration(0.001, bare=True),
            help="Stop after this time, such as 10s.  [default: at Ctrl-C]",
        ),
        click.option(
            "--heartbeat",
            type=Duration(0.1, 86_400, bare=True),
            help="Time between two heartbeats of a device.  [default: as the vendor's devices]",
        ),
        click.option(
            "--answer-delay",
            type=Duration(0, 86_400, bare=True),
            default=format_duration(ANSWER_DELAY),
            show_default=True,
            help="Time until a slow device answers.",
        ),
        click.option(
            "--answers",
            type=click.Choice([answers.value for answers in Answers], case_sensitive=False),
            default=Answers.PROMPT.value,
            show_default=True,
            help="Reaction to a command: execute it and answer at once, execute it and answer late,"
            " execute it and do not answer, or refuse it.",
        ),
        click.option(
            "--codec",
            metavar="NAME",
            shell_complete=_complete_codec,
            help="Codec of the records.  [default: the usual one of the vendor, such as 8E]",
        ),
        click.option(
            "--records",
            type=click.IntRange(1, 50),
            default=1,
            show_default=True,
            help="Number of records in a frame.",
        ),
        click.option(
            "--interval",
            type=Duration(0.01, 86_400, bare=True),
            default="1s",
            show_default=True,
            help="Time between two records of a device.",
        ),
        click.option(
            "--devices",
            type=click.IntRange(1, 100_000),
            default=25,
            show_default=True,
            help="Number of devices.",
        ),
    ):
        decorated = option(decorated)
    return decorated


@click.command()
@click.option(
    "--vendor",
    type=VendorName(),
    is_eager=True,
    default=_USUAL,
    show_default=True,
    help="Vendor of the devices.",
)
@click.option(
    "--target",
    help="Port that the devices connect to: HOST:PORT, or a Twisted client endpoint.  "
    "[default: 127.0.0.1 and the usual port of the vendor, such as 5027]",
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append a line for each acknowledged record to this file.",
)
@click.option(
    "--command-journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append a line for each executed command to this file, before the answer is sent.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random routes.")
@click.option(
    "--first",
    type=click.IntRange(0, IMEI_COUNT - 1),
    default=0,
    show_default=True,
    help="Number of the first device. Fleets that run together must not share numbers; the demo "
    "has those from 900000.",
)
@_fleet_options
def simulate(
    *,
    vendor: str,
    target: str | None,
    count: int,
    options: FleetOptions,
    seconds: float | None,
    journal: Path | None,
    command_journal: Path | None,
    seed: int,
    first: int,
) -> None:
    r"""Run a fleet of simulated devices against a port.

    Each device follows a route, records positions and sends them. Where the protocol has ACKs, it
    keeps records until they are acknowledged, and re-sends them after it reconnects. Concox
    devices keep only what they could not send; the answer to a heartbeat acknowledges the rest.
    The devices execute and answer commands.

    At the end the devices send their remaining records; a second Ctrl-C does not wait for that.
    The exit code is 1 if some records were not acknowledged, and 3 if no device could connect.

    \b
    Examples:
      tracker-admin simulate --target 127.0.0.1:5027 --devices 100 --interval 5s
      tracker-admin simulate --vendor concox --first 100 --heartbeat 30s
    """
    simulation = tools(simulation_of, vendor)[vendor]
    behaviour = options.behaviour(vendor, simulation)
    port = target or f"127.0.0.1:{simulation.port}"
    if first + count > IMEI_COUNT:
        raise click.UsageError(
            f"--first {first} --devices {count}: at most {IMEI_COUNT} devices exist."
        )
    with ExitStack() as files:
        on_acknowledged = on_command = None
        if journal is not None:
            on_acknowledged = Journal(files.enter_context(_opened("--journal", journal)))
        if command_journal is not None:
            on_command = CommandJournal(
                files.enter_context(_opened("--command-journal", command_journal))
            )

        async def drive(reactor: Reactor) -> int:
            endpoint = _client_endpoint(reactor, port)
            fleet = Fleet(
                reactor,
                endpoint,
                count,
                behaviour,
                on_acknowledged=on_acknowledged,
                seed=seed,
                first=first,
                on_command=on_command,
            )
            try:
                return await run_fleet(reactor, fleet, seconds)
            except NoConnection as error:
                text = f"Cannot connect to {port}: {error}."
                raise RunFailed(text, ExitCode.UNREACHABLE) from None

        run(drive)


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data in this folder.  [default: a temporary folder, removed at the end]",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=5027,
    show_default=True,
    help="Port on 127.0.0.1 that the Teltonika devices connect to. Those of other vendors have the "
    "usual port of the vendor, or another if it is in use.",
)
@_fleet_options
def demo(
    *, data: Path | None, port: int, count: int, options: FleetOptions, seconds: float | None
) -> None:
    """Run the whole stack with simulated devices.

    The devices are of each installed vendor. While it runs, it shows how many records were
    received and stored, also of other devices that report to its ports. At the end it waits until
    the positions of its own devices are stored; a second Ctrl-C does not wait for that. The exit
    code is 1 if some are missing. Options that the devices of a vendor do not have do not apply to
    them.
    """
    run(Demo(data, _shares(port, count, options), seconds=seconds).run)


def _shares(port: int, count: int, options: FleetOptions) -> list[Share]:
    """Return the devices of each vendor; Teltonika has the remainder, and the given port."""
    simulations = tools(simulation_of)
    vendors = sorted(simulations, key=lambda vendor: (vendor != _USUAL, vendor))[:count]
    options.check_codec({vendor: simulations[vendor] for vendor in vendors})
    shares = []
    for number, vendor in enumerate(vendors):
        simulation = simulations[vendor]
        devices = (count + len(vendors) - 1 - number) // len(vendors)
        behaviour = options.suited_to(simulation).behaviour(vendor, simulation)
        is_usual = vendor == _USUAL
        used_port = port if is_usual else simulation.port
        shares.append(Share(vendor, devices, behaviour, used_port, is_fixed=is_usual))
    return shares


def _opened(option: str, journal: Path) -> IO[str]:
    try:
        return journal.open("a", encoding="ascii")
    except OSError as error:
        raise click.UsageError(f"{option} {journal}: {error.strerror}") from None


def _client_endpoint(reactor: Reactor, description: str) -> IStreamClientEndpoint:
    try:
        described = connecting_endpoint(description)
        endpoint: IStreamClientEndpoint = clientFromString(reactor, described)
    except Exception as error:  # noqa: BLE001 - each endpoint's parser fails in its own way
        raise click.UsageError(f"--target {description}: not a client endpoint: {error}") from None
    return endpoint
