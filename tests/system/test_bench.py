"""Benchmarks run briefly, and report the figures that they promise."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import run
from tracker.vendors.installed import installed_vendors

BENCH = Path(__file__).parents[2] / "bench"


def quick(benchmark: str, *options: str) -> dict[str, Any]:
    """Return the document of a quick run."""
    ended = run("python", str(BENCH / f"{benchmark}.py"), "--quick", "--json", *options)
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["benchmark"] == benchmark
    assert document["machine"]["cores"] >= 1
    return document


def test_bench_decode_measures_each_decoder() -> None:
    results = quick("decode", "--elements", "0,19")["results"]
    shapes = [(each["decoder"], each["elements"]) for each in results]
    assert shapes == [("general", 0), ("general", 19), ("compiled", 0), ("compiled", 19)]
    assert all(each["microseconds_in_10"] > 0 for each in results)


def test_bench_connections_measures_each_number_of_connections() -> None:
    results = quick("connections", "--connections", "20,40")["results"]
    assert [each["connections"] for each in results] == [20, 40]
    assert all(each["rss_idle_mib"] > 0 for each in results)


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_bench_ingest_measures_throughput_and_limit(fsync: str) -> None:
    options = ("--own-writer", "--fsync", fsync, "--records", "3", "--connections", "7")
    (result,) = quick("ingest", *options)["results"]
    shape = {"fsync": fsync, "records": 3, "connections": 7}
    assert {name: result[name] for name in shape} == shape
    for name in (
        *("records_per_second", "packets_per_second", "limit_records_per_second", "ratio"),
        *("ingest_rss_mib", "ack_p50_ms", "ack_p99_ms", "paced_packets_per_second"),
    ):
        assert result[name] > 0, name
    for name in ("ingest_cpu_seconds_per_million", "redis_cpu_seconds_per_million"):
        assert result[name] >= 0, name  # the kernel may count no CPU time in so short a phase
    assert result["generator_percent"] >= 0


def test_bench_neighbours_measures_latency_during_an_attack() -> None:
    (result,) = quick("neighbours", "--attacks", "garbage, many")["results"]
    assert result["attack"] == "garbage, many"
    for name in ("quiet_p99_ms", "attack_p99_ms", "p99_ratio", "packets", "sent_per_second"):
        assert result[name] > 0, name


def test_bench_versus_measures_both_checkouts() -> None:
    *rounds, both = quick("versus", str(BENCH.parent), "--connections", "7")["results"]
    assert sorted(each["side"] for each in rounds) == ["other", "this"]
    assert all(each["records_per_second"] > 0 for each in rounds)
    assert both["rate_ratio"] > 0


def test_bench_process_measures_both_databases_and_end_to_end() -> None:
    *moved, end_to_end = quick("process", "--entries", "9000")["results"]
    assert [each["sink"] for each in moved] == ["postgresql", "sqlite"]
    for each in moved:
        assert each["entries"] == 9000
        for name in ("rows_per_second", "limit_rows_per_second", "ratio", "process_rss_mib"):
            assert each[name] > 0, name
    assert "postgresql_cpu_seconds_per_million" in moved[0]
    assert "postgresql_cpu_seconds_per_million" not in moved[1]
    assert end_to_end["sink"] == "end to end"
    assert end_to_end["probes"] > 0
    assert 0 < end_to_end["visible_p50_ms"] <= end_to_end["visible_p99_ms"]


def test_bench_prints_a_table_and_writes_a_document(tmp_path: Path) -> None:
    file = tmp_path / "results" / "decode.json"
    script = str(BENCH / "decode.py")
    ended = run("python", script, "--quick", "--decoders", "general", "--output", str(file))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[0] == "decoder"
    assert json.loads(file.read_text())["results"][0]["decoder"] == "general"


def test_bench_dialects_measures_each_vendor() -> None:
    results = quick("dialects")["results"]
    assert {each["vendor"] for each in results} == set(installed_vendors())
    assert all(each["microseconds"] > 0 < each["limit_microseconds"] for each in results)


@pytest.mark.parametrize(
    ("benchmark", "options"),
    [
        ("ingest", ("--fsync", "never")),
        ("ingest", ("--records", "0")),
        ("ingest", ("--records", "many")),
        ("connections", ("--connections", "0")),
        ("decode", ("--decoders", "fast")),
        ("neighbours", ("--attacks", "unknown")),
        ("process", ("--sinks", "oracle")),
        ("process", ("--entries", "1")),
        ("process", ("--rate", "1")),
        ("versus", ("nowhere",)),
    ],
)
def test_bench_refuses_an_invalid_option(
    benchmark: str,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", [benchmark, *options])
    with pytest.raises(SystemExit) as exit_:
        import_module(f"bench.{benchmark}").main()
    assert exit_.value.code == 2
    assert options[0] in capsys.readouterr().err.splitlines()[-1]
