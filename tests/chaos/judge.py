"""The account at the end of a round: compare promises with the content of the stores."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, Final

import psycopg
from attrs import define, field

from tests.chaos.devices import Heard
from tests.chaos.faults import MAX_SECONDS
from tests.chaos.orders import Order, unix
from tests.chaos.stage import Stage
from tests.system.commands import FINAL

#: Bytes that a process may have had at most, and its log may be long, in one round.
MAX_MEMORY: Final = 400 << 20
MAX_LOG: Final = 4 << 20
#: Seconds by which a command may be late at its device: that long a write may be on its way.
LATE: Final = 2 * MAX_SECONDS
#: Seconds after a write in which something may still follow from it that a failover can lose.
BEHIND: Final = 45.0
STREAM: Final = "telemetry:teltonika"


@define
class Verdict:
    """What is wrong, and the counts."""

    wrong: list[str] = field(factory=list)
    counts: dict[str, Any] = field(factory=dict)

    excused: int = 0
    """Things that are wrong because Redis has lost what it had confirmed, at a failover."""

    def check(self, holds: bool, text: str, excused: bool = False) -> None:
        """Note that something is wrong unless it holds."""
        if not holds and excused:
            self.excused += 1
        elif not holds:
            self.wrong.append(text)


def some(items: Any, number: int = 5) -> str:
    """Return the number of items, and the first ones."""
    ordered = sorted(items)
    return f"{len(ordered)}: {', '.join(map(str, ordered[:number]))}"


class Judge:
    """Compares what devices, senders and operators know with the stores."""

    def __init__(self, stage: Stage, heard: Heard) -> None:
        self._stage = stage
        self._heard = heard
        self._redis = stage.store.client()
        self._excuses = stage.store.excuses
        self.verdict = Verdict()

    def records(self, delivered: int) -> None:
        """Check that each acknowledged record is stored once, and no record that was never sent.

        :param delivered: entries in the stream.
        """
        heard, verdict = self._heard, self.verdict
        stored = Counter(self._rows("positions"))
        acknowledged, recorded = set(heard.acknowledged), heard.recorded
        verdict.check(not heard.wrong, f"devices received nonsense: {some(heard.wrong)}")
        missing = acknowledged - stored.keys()
        lost = {key for key in missing if not self._excuses.cover(heard.acknowledged[key])}
        verdict.check(not lost, f"acknowledged and not stored: {some(lost)}")
        doubled = [key for key, number in stored.items() if number > 1]
        verdict.check(not doubled, f"stored twice: {some(doubled)}")
        invented = stored.keys() - recorded
        verdict.check(not invented, f"stored and never recorded: {some(invented)}")
        verdict.check(bool(acknowledged), "no record was acknowledged")
        verdict.counts |= {
            "records": {
                "recorded": len(recorded),
                "sent": heard.sent,
                "acknowledged": len(acknowledged),
                "stored": len(stored),
                "lost": len(lost),
                "lost by Redis": len(missing - lost),
                "doubled": len(doubled),
                "entries": delivered,
            },
            "connections": heard.connections,
            "longest pause": round(heard.longest_pause, 1),
        }

    def messages(self) -> None:
        """Check that no message is stored more often than its device sent it."""
        with psycopg.connect(self._stage.postgres.url) as connection:
            rows = connection.execute(
                "SELECT device_id, coalesce(message, '') FROM messages"
            ).fetchall()
        said = self._heard.said
        invented = [key for key, number in Counter(rows).items() if number > said[key]]
        self.verdict.check(not invented, f"more messages than were sent: {some(invented)}")
        self.verdict.counts["messages"] = {"said": said.total(), "stored": len(rows)}

    def dead_letters(self, tried: set[str], appended: dict[str, float]) -> None:
        """Check that exactly the poisoned entries are dead letters."""
        entries = self._redis.xrange(f"{STREAM}:dead")
        found = {fields.get(b"mark", b"?").decode() for _, fields in entries}
        verdict = self.verdict
        missing = [
            mark
            for mark, at in appended.items()
            if mark not in found and not self._excuses.cover(at, BEHIND)
        ]
        verdict.check(not missing, f"not dead-lettered: {some(missing)}")
        verdict.check(found <= tried, f"dead letters without poison: {some(found - tried)}")
        verdict.counts["poisoned"] = {"appended": len(appended), "dead letters": len(found)}

    def commands(self, orders: dict[str, Order], rows: dict[str, dict[str, Any]]) -> None:
        """Check that each command was executed at most once, in time, and has one final response.

        :param orders: of control ports and of Directus, by command id.
        :param rows: of Directus, as they stand there.
        """
        verdict = self.verdict
        verdict.check(bool(rows) and bool(self._heard.executed), "no command was executed")
        for key, row in rows.items():
            created = unix(row["date_created"])
            orders.setdefault(
                key, Order(row["imei"], row["text"], unix(row["expires_at"]), True, created)
            )
        final = self._responses(orders)
        for key, row in rows.items():
            self._row(key, row, final.get(key), self._excused(orders[key]))
        for key, order in orders.items():
            if order.accepted and key not in rows:
                verdict.check(
                    key in final,
                    f"command {key} was accepted and has no final response",
                    self._excused(order),
                )
        self._executed(orders, final)
        kinds = Counter(
            status + (f"/{reason}" if reason else "") for status, reason in final.values()
        )
        verdict.counts["commands"] = {
            "sent": len(orders),
            "rows": len(rows),
            "executed": len(self._heard.executed),
            **dict(sorted(kinds.items())),
        }

    def _excused(self, order: Order) -> bool:
        """Return whether Redis may have lost something of this command."""
        return self._excuses.cover(order.sent_at, BEHIND)

    def _row(
        self, key: str, row: dict[str, Any], told: tuple[str, str] | None, excused: bool
    ) -> None:
        stands = (row["status"], row["reason"] or "")
        if told is not None:
            text = f"row {key} says {stands}, the response {told}"
            self.verdict.check(stands == told, text, excused)
            return
        # What the bridge refuses or finds too late it tells the row alone.
        text = f"row {key} is {row['status']}, and there is no response"
        self.verdict.check(row["status"] in ("expired", "failed"), text, excused)
        executed = (row["imei"], row["text"]) in self._heard.executed
        text = f"row {key} is {row['status']}, and was executed"
        self.verdict.check(not executed, text, excused)

    def _responses(self, orders: dict[str, Order]) -> dict[str, tuple[str, str]]:
        """Command id → its final status and reason."""
        verdict = self.verdict
        by_id: dict[str, list[dict[str, str]]] = defaultdict(list)
        for _, fields in self._redis.xrange("commands:responses"):
            response = {name.decode(): value.decode() for name, value in fields.items()}
            by_id[response["command_id"]].append(response)
        result = {}
        for key, responses in by_id.items():
            if (order := orders.get(key)) is None:
                verdict.wrong.append(f"a response to {key}, which was never sent")
                continue
            final = [one for one in responses if one["status"] in FINAL]
            text = f"command {key} has {len(final)} final responses"
            verdict.check(len(final) == 1, text, self._excused(order))
            if final:
                result[key] = (final[-1]["status"], final[-1]["reason"])
            for one in responses:
                verdict.check(
                    one["status"] != "delivered" or unix(one["at"]) < order.expires_at + LATE,
                    f"command {key} was written {one['at']}, after it had expired",
                )
        return result

    def _executed(self, orders: dict[str, Order], final: dict[str, tuple[str, str]]) -> None:
        verdict = self.verdict
        known = {(order.device_id, order.text): key for key, order in orders.items()}
        for what, moments in self._heard.executed.items():
            if what not in known:
                verdict.wrong.append(f"executed and never sent: {what}")
                continue
            key = known[what]
            order, excused = orders[key], self._excused(orders[key])
            text = f"command {key} was executed {len(moments)} times"
            verdict.check(len(moments) == 1, text, excused)
            late = moments[0] - order.expires_at
            verdict.check(late < LATE, f"command {key} was executed {late:.1f} s too late")
            text = f"command {key} was executed, and expired"
            verdict.check(final.get(key, ("",))[0] != "expired", text, excused)
        for key, (status, _) in final.items():
            order = orders[key]
            text = f"command {key} was answered, and never executed"
            executed = (order.device_id, order.text) in self._heard.executed
            verdict.check(status != "responded" or executed, text)

    def links(self) -> None:
        """Check that every link was used."""
        unused = [name for name, link in self._stage.wiring.links.items() if not link.accepted]
        self.verdict.check(not unused, f"unused links: {some(unused)}")

    def processes(self, peaks: dict[str, int], died: list[str]) -> None:
        """Check that no process died by itself, used too much memory or logged too much."""
        verdict = self.verdict
        verdict.wrong += died
        for name, daemon in self._stage.daemons.items():
            text = daemon.text
            for bad in ("Traceback", "Unhandled"):
                at = text.find(bad)
                verdict.check(at < 0, f"{name} logs {bad}: …{text[max(0, at - 300) : at + 1500]}")
            size = daemon.log.stat().st_size
            verdict.check(size < MAX_LOG, f"the log of {name} has {size} bytes")
            peak = peaks.get(name, 0)
            verdict.check(peak < MAX_MEMORY, f"{name} had {peak >> 20} MiB of memory")
        verdict.counts["MiB"] = {name: peak >> 20 for name, peak in peaks.items()}

    def _rows(self, table: str) -> list[tuple[str, str]]:
        with psycopg.connect(self._stage.postgres.url) as connection:
            return connection.execute(
                "SELECT device_id, to_char(ts AT TIME ZONE 'UTC', "
                f'\'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\') FROM {table}'
            ).fetchall()
