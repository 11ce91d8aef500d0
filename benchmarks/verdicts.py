"""What people, connectors and functions saw from the outside, against what the database says."""

from __future__ import annotations

import bisect
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.lifecycle import COMPLETED, PAUSED, TERMINAL
from app.ids import step_id
from app.store.leases import EXECUTOR_LOST
from benchmarks import checks
from benchmarks.checks import Violations
from benchmarks.operators import STOPS, Deed
from benchmarks.server import Bench

GRACE = 5.0  # seconds behind a restart of the database in which the API may still answer 503

_AUDITED = {
    "start": ("run.created",),
    "cancel": ("run.cancelled",),
    "pause": ("run.paused",),
    "resume": ("run.resumed",),
    "retry": ("run.retried",),
    "approve": ("run.approved", "run.rejected"),
}
_REVIVALS = ("run.resumed", "run.retried")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """An audit event that somebody asked for himself; ``at`` is in ns since 1970.

    ``held`` says that a run that was paused already is from now on paused by this pause.
    """

    action: str
    run_id: str
    at: int
    xid: str
    held: bool


def _ns(moment: datetime) -> int:
    passed = moment - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1000


def _sampled(name: str, found: Sequence[Any]) -> Violations:
    return Violations(name, len(found), list(found[:3]))


class Judge:
    """Holds the deeds of a round against its database; times are in s since 1970.

    ``away`` is when the database was restarted, ``killed`` when an API process was.
    """

    def __init__(
        self,
        bench: Bench,
        deeds: list[Deed],
        marks: Path,
        *,
        away: list[tuple[float, float]],
        killed: list[float],
    ) -> None:
        self._bench = bench
        self._deeds = deeds
        self._away = away
        self._killed = killed
        self._marks = marks
        self._events = self._direct_events()
        self._revivals = self._times(_REVIVALS)
        self._starts: dict[str, list[tuple[int, int]]] = defaultdict(list)  # run: seq and ns
        for run_id, seq, at in bench.sql(
            "SELECT run_id, seq, started_at FROM steps WHERE started_at IS NOT NULL"
        ):
            self._starts[run_id].append((seq, _ns(at)))
        self._by_xid: dict[str, Deed] = {}

    def all(self) -> list[Violations]:
        """Every check, with what it found."""
        return [
            *self.answers(),
            *self.audit(),
            *self.trees(),
            *self.side_effects(),
        ]

    def _direct_events(self) -> dict[str, list[Event]]:
        events: dict[str, list[Event]] = defaultdict(list)
        for key, action, run_id, at, xid, held in self._bench.sql(
            "SELECT actor_key_id, action, run_id, created_at, xid::text,"
            " payload -> 'held' IS NOT NULL FROM audit_events"
            " WHERE payload -> 'cascadedFrom' IS NULL AND run_id IS NOT NULL"
            " ORDER BY created_at"
        ):
            events[key].append(Event(action, run_id, _ns(at), xid, held))
        return events

    def _times(self, actions: tuple[str, ...]) -> dict[str, list[int]]:
        times: dict[str, list[int]] = defaultdict(list)
        for run_id, at in self._bench.sql(
            "SELECT run_id, created_at FROM audit_events WHERE action = ANY (%s)"
            " ORDER BY created_at",
            list(actions),
        ):
            times[run_id].append(_ns(at))
        return times

    def _in_restart(self, deed: Deed, grace: float = 0.0) -> bool:
        begin, end = deed.sent / 1e9, deed.answered / 1e9
        return any(begin <= up + grace and end >= down for down, up in self._away)

    def _in_kill(self, deed: Deed) -> bool:
        return any(deed.sent / 1e9 <= at <= deed.answered / 1e9 for at in self._killed)

    def answers(self) -> Iterator[Violations]:
        """What the API answered at all."""
        strange = [d for d in self._deeds if d.status not in (200, 201, 409, 503, None)]
        cut = [d for d in self._deeds if d.status is None and not self._in_kill(d)]
        away = [d for d in self._deeds if d.status == 503 and not self._in_restart(d, GRACE)]
        yield _sampled("answers that are none of 200, 201, 409, 503", [_shown(d) for d in strange])
        yield _sampled("requests without an answer", [_shown(d) for d in cut])
        yield _sampled("answers 503 while the database was there", [_shown(d) for d in away])
        known = {row[0] for row in self._bench.sql("SELECT id FROM runs")}
        lost = [d for d in self._deeds if d.action == "start" and d.moved and d.run_id not in known]
        yield _sampled("acknowledged runs that are gone", [_shown(d) for d in lost])
        ends = {"cancel": TERMINAL, "pause": (PAUSED, *TERMINAL)}
        other = [
            d
            for d in self._deeds
            if d.action in ends and d.status == 200 and d.run_status not in ends[d.action]
        ]
        yield _sampled(
            "stops that were answered with a run that goes on", [_shown(d) for d in other]
        )

    def audit(self) -> Iterator[Violations]:
        """One event for each deed that moved, none for any other."""
        by_key: dict[str, list[Deed]] = defaultdict(list)
        for deed in self._deeds:
            by_key[deed.key].append(deed)
        untold: list[Any] = []
        unasked: list[Any] = []
        for key, deeds in by_key.items():
            deeds.sort(key=lambda deed: deed.sent)
            sent = [deed.sent for deed in deeds]
            found: dict[int, list[Event]] = defaultdict(list)
            for event in self._events.get(key, ()):
                place = _asked_by(event, deeds, bisect.bisect_right(sent, event.at) - 1, found)
                found[place].append(event)
                self._by_xid[event.xid] = deeds[place]
                if not _fits(event, deeds[place]):
                    unasked.append((_shown(deeds[place]), event))
            for place, deed in enumerate(deeds):
                events, moved = found[place], deed.moved
                if moved is False and deed.action in STOPS and self._in_restart(deed):
                    moved = None  # sent twice by the API: the second one may have found it done
                if deed.code == "already_paused" and all(event.held for event in events):
                    moved = None
                if len(events) > 1 or (moved is not None and len(events) != moved):
                    (unasked if events else untold).append((_shown(deed), events))
        strangers = self._events.keys() - by_key.keys() - {"executor", self._bench.actor.key_id}
        unasked += [(key, self._events[key][0]) for key in strangers]
        yield _sampled("requests that moved a run without an audit event", untold)
        yield _sampled("audit events that no request explains", unasked)
        confirmed = []
        for run_id, xid, key in self._bench.sql(
            "SELECT c.run_id, c.xid::text, a.actor_key_id FROM ledger_changes c"
            " JOIN audit_events a ON a.run_id = c.run_id AND a.xid = c.xid"
            " WHERE c.was_in_doubt AND a.action = 'run.resumed'"
        ):
            deed_of = self._by_xid.get(xid)
            if deed_of is not None and not deed_of.asked.get("confirmInDoubtReplay"):
                confirmed.append((run_id, key, _shown(deed_of)))
        yield _sampled("runs in doubt that were resumed without a confirmation", confirmed)

    def trees(self) -> Iterator[Violations]:
        """What was seen right behind the answer to each cancel and pause that moved."""
        late, open_runs, unnamed = [], [], []
        for deed in self._deeds:
            if not deed.tree:
                continue
            stopped = self._stopped_at(deed)
            allowed = TERMINAL if deed.action == "cancel" else (PAUSED, *TERMINAL)
            for run_id, seen in deed.tree.items():
                times = self._revivals.get(run_id, [])
                place = bisect.bisect_right(times, stopped)
                until = times[place] if place < len(times) else None
                after = [
                    seq
                    for seq, at in self._starts.get(run_id, ())
                    if seq not in seen.started and (until is None or at < until)
                ]
                if after:
                    late.append((_shown(deed), run_id, after))
                if seen.revived:
                    continue
                if seen.status not in allowed:
                    open_runs.append((_shown(deed), run_id, seen.status))
                missing = {node for _, node in seen.in_flight if (run_id, node) not in deed.named}
                if len(missing) > deed.unnamed:
                    unnamed.append((_shown(deed), run_id, missing))
        yield _sampled("runs of stopped trees with a step that started after the answer", late)
        yield _sampled("runs of stopped trees that went on", open_runs)
        yield _sampled("nodes in flight that the answer did not name", unnamed)

    def _stopped_at(self, deed: Deed) -> int:
        """When the deed's own change was made."""
        events = self._events.get(deed.key, ())
        mine = [e.at for e in events if e.run_id == deed.run_id and e.at >= deed.sent]
        return min(mine, default=deed.sent)

    def side_effects(self) -> Iterator[Violations]:
        """What the functions did, against the trace and the answers."""
        places, steps = self._places(), self._function_steps()
        left = checks.marks(self._marks)
        counted = Counter(mark.step for mark in left)
        yield _sampled(
            "side effects of steps that never started", [s for s in counted if s not in steps]
        )
        yield _sampled("side effects twice in a step", [s for s, n in counted.items() if n > 1])
        done: set[tuple[str, str]] = set()
        again = []
        for mark in left:
            status, error, run_id = steps.get(mark.step, ("", None, ""))
            if error == EXECUTOR_LOST:
                continue  # an executor that had been frozen goes on; nobody can keep it from that
            place = (run_id, places.get(mark.step, ""))
            if place in done:
                again.append(mark)
            if status == COMPLETED:
                done.add(place)
        yield _sampled("side effects after the node had finished", again)
        yield _sampled("side effects after the answer, of nodes it did not name", self._late(steps))

    def _late(self, steps: dict[str, tuple[str, str | None, str]]) -> list[Any]:
        stops: dict[str, list[tuple[int, int | None, Deed]]] = defaultdict(list)
        for run_id, at, until, xid in self._bench.sql(
            "SELECT c.run_id, c.at, (SELECT min(n.at) FROM ledger_changes n WHERE n.run_id ="
            " c.run_id AND n.at > c.at AND n.new = 'queued'), c.xid::text FROM ledger_changes c"
            " WHERE c.new IN ('cancelled', 'paused') AND c.old <> c.new"
        ):
            if deed := self._by_xid.get(xid):
                stops[run_id].append((_ns(at), _ns(until) if until else None, deed))
        late = []
        for mark in checks.marks(self._marks):
            _, error, run_id = steps.get(mark.step, ("", None, ""))
            if error == EXECUTOR_LOST:
                continue
            for at, until, deed in stops.get(run_id, ()):
                if deed.status != 200 or deed.moved is not True or deed.unnamed:
                    continue
                behind = mark.at > max(at, deed.answered) and (until is None or mark.at < until)
                if behind and (run_id, mark.node) not in deed.named:
                    late.append((mark, _shown(deed)))
        return late

    def _places(self) -> dict[str, str]:
        rows = self._bench.sql("SELECT run_id, seq, place FROM places")
        return {step_id(run_id, seq): place for run_id, seq, place in rows}

    def _function_steps(self) -> dict[str, tuple[str, str | None, str]]:
        rows = self._bench.sql(
            "SELECT run_id, seq, status, error FROM steps"
            " WHERE node_type = 'function' AND started_at IS NOT NULL"
        )
        return {step_id(run, seq): (status, error, run) for run, seq, status, error in rows}


def _fits(event: Event, deed: Deed) -> bool:
    return event.action in _AUDITED[deed.action] and deed.run_id in ("", event.run_id)


def _asked_by(
    event: Event, deeds: Sequence[Deed], last: int, found: Mapping[int, list[Event]]
) -> int:
    """The place of the request that an event is of: the last one that was sent before it.

    But a statement that waited for a lock while its API process was killed may come in later.
    """
    for place in range(last, max(-1, last - 20), -1):
        asks = place == last or deeds[place].status is None
        if asks and _fits(event, deeds[place]) and not found.get(place):
            return place
    return last


def _shown(deed: Deed) -> str:
    named = ",".join(sorted("/".join(pair) for pair in deed.named))
    return (
        f"{deed.action} {deed.run_id} {dict(deed.asked)} at {deed.sent / 1e9:.6f}: {deed.status}"
        f" {deed.code} moved={deed.moved} run={deed.run_status} in flight: {named or 'none'}"
    )


def connector(bench: Bench, path: Path) -> list[Violations]:
    """What the connector wrote down."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        of[line["what"]].append(line)
    dispatched = Counter(line["step"] for line in of["dispatched"])
    told = {
        line["step"]
        for line in of["told"]
        if line["event"] == "node.cancelled" and line["answered"] == 200
    }
    ended = [line for line in of["called"] if line["verb"] in ("complete", "fail")]
    recorded = Counter(line["step"] for line in ended if line["outcome"] == "recorded")
    late = {line["step"] for line in ended if line["outcome"] == "late"}
    steps = {
        step_id(run_id, seq): (run_id, status, is_kept, has_ended)
        for run_id, seq, status, is_kept, has_ended in bench.sql(
            "SELECT run_id, seq, status, metadata -> 'lateCallback' IS NOT NULL,"
            " result IS NOT NULL FROM steps WHERE connector IS NOT NULL"
        )
    }
    stopped = {
        row[0]
        for row in bench.sql(
            "SELECT run_id FROM ledger_changes WHERE new IN ('cancelled', 'failed')"
        )
    }
    untold = [
        step
        for step, (_, status, _, has_ended) in steps.items()
        if status == "cancelled" and not has_ended and step in dispatched and step not in told
    ]
    lied = [
        step
        for step in told
        if step in steps and steps[step][1] == COMPLETED and steps[step][0] not in stopped
    ]
    refused = [x for x in of["called"] if x["status"] not in (200, 503, None)]
    return [
        _sampled("cancelled steps of which the connector was not told", untold),
        _sampled("steps that were told to be cancelled, and completed", lied),
        _sampled("steps that were dispatched twice", [s for s, n in dispatched.items() if n > 1]),
        _sampled("dispatched steps that do not exist", [s for s in dispatched if s not in steps]),
        _sampled("requests to the connector with a wrong signature", of["forged"]),
        _sampled("callbacks recorded twice", [s for s, n in recorded.items() if n > 1]),
        _sampled("late callbacks that are not in the trace", [s for s in late if not steps[s][2]]),
        _sampled("callbacks that were refused", refused),
    ]


def logs(directory: Path) -> list[Violations]:
    """Errors that the executors and the API logged; crashes log no JSON."""
    errors = []
    for path in sorted(directory.glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
                is_error = entry.get("level") in ("error", "critical")
            except (ValueError, AttributeError):
                is_error = line.startswith("Traceback") or " [ERROR] " in line
            if is_error and "was sent SIGKILL" not in line:  # by us
                errors.append((path.name, line[:1500]))
    return [_sampled("errors in the logs of executors and API", errors)]


def database_log(text: str) -> list[Violations]:
    """Deadlocks and other errors that PostgreSQL logged."""
    lines = text.splitlines()
    deadlocks = [line for line in lines if "deadlock detected" in line]
    panics = [line for line in lines if " PANIC: " in line or "was terminated by signal" in line]
    errors = [line for line in lines if " ERROR: " in line and line not in deadlocks]
    return [
        _sampled("deadlocks", deadlocks),
        _sampled("crashes of PostgreSQL that nobody asked for", panics),
        _sampled("other errors that PostgreSQL logged", errors),
    ]
