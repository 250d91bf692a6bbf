"""The listening sockets and the overview of the demo."""

from __future__ import annotations

import socket

import pytest

from tracker.simulator.demo import folded, free_socket, listening_socket

LONG = "x" * 50


def test_demo_uses_another_port_for_a_page_if_its_port_is_in_use() -> None:
    with listening_socket() as first:
        port = first.getsockname()[1]
        second, (note,) = free_socket("console", port)
        with second:
            other = second.getsockname()[1]
            assert other not in (0, port)
            assert str(port) in note
            assert f"console uses {other}" in note


def test_demo_listens_on_the_given_free_port() -> None:
    with listening_socket() as probe:
        port = probe.getsockname()[1]
    listening, notes = free_socket("console", port)
    with listening:
        assert (listening.getsockname(), notes) == (("127.0.0.1", port), [])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        (["program", "command", "--option x"], ["program command --option x"]),
        (["p" * 60, "c" * 7], [f"{'p' * 60} {'c' * 7}"]),
        (["p" * 60, "c" * 8], ["p" * 60 + " \\", "c" * 8]),
        (["program", "command", LONG, LONG], [f"program command {LONG} \\", LONG]),
        ([LONG + LONG, "command", LONG], [f"{LONG}{LONG} \\", f"command {LONG}"]),
    ],
)
def test_command_of_the_overview_is_folded_for_the_shell(
    parts: list[str], lines: list[str]
) -> None:
    assert [line.strip() for line in folded(parts).split("\n")] == lines
