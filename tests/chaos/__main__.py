"""Run rounds of random faults, and account for every record and command after each."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.reactorthread import ReactorThread


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed",
        default=str(int(time.time())),
        help="Seed of all faults. [default: the current time]",
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="Seconds of faults per round. [default: 60]"
    )
    parser.add_argument("--rounds", type=int, default=1, help="Number of rounds. [default: 1]")
    parser.add_argument(
        "--variants",
        default="plain",
        help="One or more of plain, tls, sentinel and directus (a real one), separated by commas. "
        "They alternate; the seed chooses the first one. [default: plain]",
    )
    parser.add_argument("--verbose", action="store_true", help="Show each fault when it begins.")
    parser.add_argument("--keep", type=Path, help="Folder to keep all data and logs in.")
    return parser.parse_args()


def main() -> int:
    """Run all rounds; return the exit code."""
    options = arguments()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    reactor_thread = ReactorThread()  # installs the reactor, before other modules import one
    from tests.chaos.round import summary, total
    from tests.chaos.stage import VARIANTS

    names = options.variants.split(",")
    first = Random(options.seed).randrange(len(names))
    counts: list[dict[str, Any]] = []
    failed = 0
    try:
        for number, name in enumerate(islice(cycle(names), first, first + options.rounds)):
            seed = options.seed if options.rounds == 1 else f"{options.seed}.{number}"
            print(f"round {number + 1} of {options.rounds}: {name}, seed {seed}", flush=True)
            problems, round_counts = one_round(options, VARIANTS[name], seed, reactor_thread)
            counts.append(round_counts)
            print(summary(round_counts))
            for text in problems:
                print(f"  FAILED: {text}")
            if problems:
                failed += 1
                print(
                    f"  repeat with: python -m tests.chaos --seed {seed} --variants {name} "
                    f"--seconds {options.seconds:g}",
                    flush=True,
                )
        if len(counts) > 1:
            print(f"{len(counts)} rounds, {failed} failed\n{summary(total(counts))}")
    finally:
        reactor_thread.close()
    return 1 if failed else 0


def one_round(
    options: argparse.Namespace, variant: Any, seed: str, reactor_thread: ReactorThread
) -> tuple[list[str], dict[str, Any]]:
    """Run one round; return its problems and counts."""
    from tests.chaos.round import Load, Round

    folder = Path(tempfile.mkdtemp(prefix="tracker-chaos-"))
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if options.verbose:
            print(f"  {line}", flush=True)

    verdict = None
    try:
        verdict = Round(
            folder, variant, seed, options.seconds, Load(), reactor_thread, report
        ).run()
    finally:
        if options.keep is not None:
            kept = options.keep / f"{variant.name}-{seed}"
            shutil.copytree(folder, kept, ignore_dangling_symlinks=True, dirs_exist_ok=True)
            (kept / "faults.txt").write_text("\n".join(lines))
        shutil.rmtree(folder, ignore_errors=True)
    return verdict.problems, verdict.counts


if __name__ == "__main__":
    sys.exit(main())
