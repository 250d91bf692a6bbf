"""The account at the end of a round: checks of the guarantees against the stores."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Final

import psycopg
from attrs import define, field

from tests.chaos.devices import DeviceJournal
from tests.chaos.faults import MAX_FAULT_SECONDS
from tests.chaos.orders import Order, unix
from tests.chaos.stage import Stage
from tests.system.commands import FINAL

#: Maximum bytes of a process's memory, and of its log, in one round.
MAX_MEMORY: Final = 400 << 20
MAX_LOG: Final = 4 << 20
#: Seconds after its expiry at which a command may still reach its device: faults delay a write.
MAX_LATENESS: Final = 2 * MAX_FAULT_SECONDS
#: Seconds after a write in which a failover may lose later writes that follow from it.
FOLLOWING_SECONDS: Final = 45.0
STREAM: Final = "telemetry:teltonika"


@define
class Verdict:
    """Problems and counts of a round."""

    problems: list[str] = field(factory=list)
    counts: dict[str, Any] = field(factory=dict)

    explained: int = 0
    """Number of problems that a failover explains, in which Redis lost confirmed writes."""

    def check(self, holds: bool, text: str, explained: bool = False) -> None:
        """Add a problem unless the condition holds.

        :param text: the problem.
        :param explained: True if a failover explains it.
        """
        if not holds and explained:
            self.explained += 1
        elif not holds:
            self.problems.append(text)


def some(items: Any, number: int = 5) -> str:
    """Return the number of items and the first ones as text."""
    ordered = sorted(items)
    return f"{len(ordered)}: {', '.join(map(str, ordered[:number]))}"


class Judge:
    """Compares the journals of devices, senders and operators with the stores."""

    def __init__(self, stage: Stage, journal: DeviceJournal) -> None:
        self._stage = stage
        self._journal = journal
        self._redis = stage.store.client()
        self._failovers = stage.store.failovers
        self.verdict = Verdict()

    def records(self, delivered: int) -> None:
        """Check that each acknowledged record is stored once, and no record that was never sent.

        :param delivered: number of entries added to the stream.
        """
        journal, verdict = self._journal, self.verdict
        stored = Counter(self._rows("positions"))
        acknowledged, recorded = set(journal.acknowledged), journal.recorded
        verdict.check(
            not journal.problems, f"devices received wrong bytes: {some(journal.problems)}"
        )
        missing = acknowledged - stored.keys()
        lost = {
            key for key in missing if not self._failovers.may_have_lost(journal.acknowledged[key])
        }
        verdict.check(not lost, f"acknowledged but not stored: {some(lost)}")
        doubled = [key for key, number in stored.items() if number > 1]
        verdict.check(not doubled, f"stored twice: {some(doubled)}")
        invented = stored.keys() - recorded
        verdict.check(not invented, f"stored but never recorded: {some(invented)}")
        verdict.check(bool(acknowledged), "no record was acknowledged")
        verdict.counts |= {
            "records": {
                "recorded": len(recorded),
                "sent": journal.sent,
                "acknowledged": len(acknowledged),
                "stored": len(stored),
                "lost": len(lost),
                "lost by Redis": len(missing - lost),
                "doubled": len(doubled),
                "entries": delivered,
            },
            "connections": journal.connections,
            "longest pause": round(journal.longest_pause, 1),
        }

    def messages(self) -> None:
        """Check that no message is stored more often than its device sent it."""
        with psycopg.connect(self._stage.postgres.url) as connection:
            rows = connection.execute(
                "SELECT device_id, coalesce(message, '') FROM messages"
            ).fetchall()
        texts = self._journal.texts
        invented = [key for key, number in Counter(rows).items() if number > texts[key]]
        self.verdict.check(not invented, f"messages stored more often than sent: {some(invented)}")
        self.verdict.counts["messages"] = {"sent": texts.total(), "stored": len(rows)}

    def dead_letters(self, tried: set[str], appended: dict[str, float]) -> None:
        """Check that exactly the poisoned entries are dead letters."""
        entries = self._redis.xrange(f"{STREAM}:dead")
        found = {fields.get(b"mark", b"?").decode() for _, fields in entries}
        verdict = self.verdict
        missing = [
            mark
            for mark, at in appended.items()
            if mark not in found and not self._failovers.may_have_lost(at, FOLLOWING_SECONDS)
        ]
        verdict.check(not missing, f"malformed entries not in dead letters: {some(missing)}")
        verdict.check(found <= tried, f"dead letters of valid entries: {some(found - tried)}")
        verdict.counts["malformed entries"] = {
            "appended": len(appended),
            "dead letters": len(found),
        }

    def commands(self, orders: dict[str, Order], rows: dict[str, dict[str, Any]]) -> None:
        """Check that each command was executed at most once, in time, and has one final response.

        :param orders: command ID → command of a control port or of Directus.
        :param rows: row id → row of Directus.
        """
        verdict = self.verdict
        verdict.check(bool(rows) and bool(self._journal.executed), "no command was executed")
        for key, row in rows.items():
            created = unix(row["date_created"])
            orders.setdefault(
                key, Order(row["imei"], row["text"], unix(row["expires_at"]), True, created)
            )
        final = self._responses(orders)
        for key, row in rows.items():
            self._row(key, row, final.get(key), self._is_explained(orders[key]))
        for key, order in orders.items():
            if order.accepted and key not in rows:
                verdict.check(
                    key in final,
                    f"command {key} was accepted but has no final response",
                    self._is_explained(order),
                )
        self._executed(orders, final)
        kinds = Counter(
            status + (f"/{reason}" if reason else "") for status, reason in final.values()
        )
        verdict.counts["commands"] = {
            "sent": len(orders),
            "rows": len(rows),
            "executed": len(self._journal.executed),
            **dict(sorted(kinds.items())),
        }

    def _is_explained(self, order: Order) -> bool:
        """Return True if a failover may have lost writes of this command."""
        return self._failovers.may_have_lost(order.sent_at, FOLLOWING_SECONDS)

    def _row(
        self, key: str, row: dict[str, Any], response: tuple[str, str] | None, explained: bool
    ) -> None:
        written = (row["status"], row["reason"] or "")
        if response is not None:
            text = f"row {key} has status {written}, its response {response}"
            self.verdict.check(written == response, text, explained)
            return
        # The bridge writes the status of a refused or expired command to the row only.
        text = f"row {key} is {row['status']} without a response"
        self.verdict.check(row["status"] in ("expired", "failed"), text, explained)
        executed = (row["imei"], row["text"]) in self._journal.executed
        text = f"row {key} is {row['status']} but was executed"
        self.verdict.check(not executed, text, explained)

    def _responses(self, orders: dict[str, Order]) -> dict[str, tuple[str, str]]:
        """Return command ID → final status and reason."""
        verdict = self.verdict
        by_id: dict[str, list[dict[str, str]]] = defaultdict(list)
        for _, fields in self._redis.xrange("commands:responses"):
            response = {name.decode(): value.decode() for name, value in fields.items()}
            by_id[response["command_id"]].append(response)
        result = {}
        for key, responses in by_id.items():
            if (order := orders.get(key)) is None:
                verdict.problems.append(f"response to {key}, which was never sent")
                continue
            final = [one for one in responses if one["status"] in FINAL]
            text = f"command {key} has {len(final)} final responses"
            verdict.check(len(final) == 1, text, self._is_explained(order))
            if final:
                result[key] = (final[-1]["status"], final[-1]["reason"])
            for one in responses:
                verdict.check(
                    one["status"] != "delivered"
                    or unix(one["at"]) < order.expires_at + MAX_LATENESS,
                    f"command {key} was written at {one['at']}, after it had expired",
                )
        return result

    def _executed(self, orders: dict[str, Order], final: dict[str, tuple[str, str]]) -> None:
        verdict = self.verdict
        known = {(order.device_id, order.text): key for key, order in orders.items()}
        for command, moments in self._journal.executed.items():
            if command not in known:
                verdict.problems.append(f"executed but never sent: {command}")
                continue
            key = known[command]
            order, explained = orders[key], self._is_explained(orders[key])
            text = f"command {key} was executed {len(moments)} times"
            verdict.check(len(moments) == 1, text, explained)
            late = moments[0] - order.expires_at
            verdict.check(late < MAX_LATENESS, f"command {key} was executed {late:.1f} s too late")
            text = f"command {key} was executed but is expired"
            verdict.check(final.get(key, ("",))[0] != "expired", text, explained)
        for key, (status, _) in final.items():
            order = orders[key]
            text = f"command {key} was answered but never executed"
            executed = (order.device_id, order.text) in self._journal.executed
            verdict.check(status != "responded" or executed, text)

    def links(self) -> None:
        """Check that every proxy was used."""
        unused = [name for name, link in self._stage.wiring.links.items() if not link.accepted]
        self.verdict.check(not unused, f"unused proxies: {some(unused)}")

    def processes(self, peaks: dict[str, int], unexpected_ends: list[str]) -> None:
        """Check that no process ended unexpectedly, used too much memory, or logged too much."""
        verdict = self.verdict
        verdict.problems += unexpected_ends
        for name, daemon in self._stage.daemons.items():
            text = daemon.text
            for mark in ("Traceback", "Unhandled"):
                at = text.find(mark)
                verdict.check(at < 0, f"{name} logs {mark}: …{text[max(0, at - 300) : at + 1500]}")
            size = daemon.log.stat().st_size
            verdict.check(size < MAX_LOG, f"the log of {name} has {size} bytes")
            peak = peaks.get(name, 0)
            verdict.check(peak < MAX_MEMORY, f"{name} used {peak >> 20} MiB of memory")
        verdict.counts["MiB"] = {name: peak >> 20 for name, peak in peaks.items()}

    def _rows(self, table: str) -> list[tuple[str, str]]:
        with psycopg.connect(self._stage.postgres.url) as connection:
            return connection.execute(
                "SELECT device_id, to_char(ts AT TIME ZONE 'UTC', "
                f'\'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\') FROM {table}'
            ).fetchall()
