"""Thousands of cancels at random moments: the first part of ``python -m benchmarks.stress``.

Runs of many fast nodes, three executor processes, and clients that cancel each run at a random
moment through the HTTP API: still queued, between two nodes, in a node, asleep, backing off, ended;
some twice at the same time. The first half is with LISTEN, the second without, and now and then an
executor is killed. Right behind each answer the client reads which steps have started: there must
never be another one. At the end every trace is read.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

from benchmarks import checks, report, workflows
from benchmarks.canceller import Cancelled, Canceller
from benchmarks.checks import Violations
from benchmarks.report import percentile
from benchmarks.server import Bench, Plan, Server

EXECUTORS = 3
CLIENTS = 6


def _phase(
    bench: Bench, plans: list[Plan], count: int, *, listen: bool, kills: int
) -> list[Cancelled]:
    """Cancel ``count`` runs, and kill ``kills`` executors meanwhile; what the clients were told."""
    switch = {"METRONOME_LISTEN": "on" if listen else "off", "METRONOME_POLL_SECONDS": "0.1"}
    processes = [bench.start_api(**switch)]
    processes += [bench.start_executor(wait=False, **switch) for _ in range(EXECUTORS)]
    for process in processes[1:]:
        bench.wait_for_executor(process)
    clients = min(CLIENTS, count)
    shares = [count // clients + (number < count % clients) for number in range(clients)]
    cancellers = [Canceller(bench, plans, share) for share in shares]
    begin = time.monotonic()
    for canceller in cancellers:
        canceller.start()
    killed = 0
    while any(canceller.is_alive() for canceller in cancellers):
        time.sleep(0.1)
        for process in processes:
            assert process.returncode is None, process.logs()[-3000:]
        progress = sum(len(canceller.done) for canceller in cancellers) / count
        if progress > (killed + 1) / (kills + 1):
            place = random.randint(1, EXECUTORS)
            processes[place].kill9()
            bench.processes.remove(processes[place])
            processes[place] = bench.start_executor(wait=False, **switch)
            killed += 1
    seconds = time.monotonic() - begin
    for canceller in cancellers:
        if canceller.error is not None:
            raise canceller.error
    bench.wait_until_idle()
    bench.stop(*processes)
    done = [one for canceller in cancellers for one in canceller.done]
    title = f"{'With' if listen else 'Without'} LISTEN, {killed} executors killed meanwhile"
    _print(title, done, seconds)
    return done


def _print(title: str, done: list[Cancelled], seconds: float) -> None:
    before = Counter(one.before for one in done)
    outcomes = Counter(answer.outcome for one in done for answer in one.answers)
    taken = [answer.seconds * 1000 for one in done for answer in one.answers]
    rows: list[tuple[str, object]] = [
        ("runs", len(done)),
        ("cancels", len(taken)),
        ("cancels a second", len(taken) / seconds),
        ("answered in, p50 ms", percentile(taken, 50)),
        ("answered in, p99 ms", percentile(taken, 99)),
        ("cancelled twice at once", sum(len(one.answers) > 1 for one in done)),
        *((f"right before: {state}", before[state]) for state in sorted(before)),
        *((f"answered: {outcome}", outcomes[outcome]) for outcome in sorted(outcomes)),
        (
            "answers that name a node in flight",
            sum(bool(a.in_flight) for o in done for a in o.answers),
        ),
        ("runs with no step yet", sum(not one.started for one in done)),
        ("started steps, mean", sum(len(one.started) for one in done) / len(done)),
    ]
    report.table(title, ("", ""), rows)


def _answers_against_traces(bench: Bench, done: list[Cancelled], marks: Path) -> list[Violations]:
    """What the clients were told against how things stand at the end."""
    statuses = dict(bench.sql("SELECT id, status FROM runs"))
    started: dict[str, set[int]] = {}
    for run_id, seq in bench.sql("SELECT run_id, seq FROM steps WHERE started_at IS NOT NULL"):
        started.setdefault(run_id, set()).add(seq)
    late, other, wrong_outcome, unnamed, not_one = [], [], [], [], []
    for one in done:
        if started.get(one.run_id, set()) != one.started:
            late.append((one.run_id, one.plan, started.get(one.run_id), one.started))
        if {answer.status for answer in one.answers} != {statuses[one.run_id]}:
            other.append((one.run_id, one.answers, statuses[one.run_id]))
        if any(a.outcome not in ("cancelled", f"already_{a.status}") for a in one.answers):
            wrong_outcome.append((one.run_id, one.answers))
        moved = [answer for answer in one.answers if answer.outcome == "cancelled"]
        if len(moved) != (statuses[one.run_id] == "cancelled"):
            not_one.append((one.run_id, one.answers))
        if not one.in_flight <= one.answers[0].in_flight:
            unnamed.append((one.run_id, one.answers, one.in_flight))
    return [
        Violations("runs with a step that started after the answer", len(late), late[:3]),
        Violations("runs that ended other than answered", len(other), other[:3]),
        Violations("answers with a wrong Cancel-Outcome", len(wrong_outcome), wrong_outcome[:3]),
        Violations("runs moved by more or less than one cancel", len(not_one), not_one[:3]),
        Violations("nodes in flight that the answer did not name", len(unnamed), unnamed[:3]),
        _late_effects(done, marks),
    ]


def _late_effects(done: list[Cancelled], path: Path) -> Violations:
    """A function that began its work after the answer must be one that the answer named."""
    answers = {one.run_id.removeprefix("run_"): one.answers[0] for one in done}
    late = []
    for mark in checks.marks(path):
        answer = answers[mark.step.removeprefix("step_").rpartition("_")[0]]
        if mark.at > answer.at and mark.node not in answer.in_flight:
            late.append((mark, answer))
    return Violations(
        "side effects after the answer, of nodes it did not name", len(late), late[:3]
    )


def cancels(postgres: Server, count: int, kills: int) -> tuple[list[Violations], str]:
    """Cancel ``count`` runs, half of them without LISTEN; what was found, and how much."""
    with postgres.bench(lease_seconds=5.0, web_workers=2) as bench:
        marks = postgres.home / "marks"
        plans = [Plan(bench, name, one) for name, one in workflows.all_of_them(marks).items()]
        done = []
        for listen in (True, False):
            share, deaths = ((x - x // 2 if listen else x // 2) for x in (count, kills))
            if share:
                done += _phase(bench, plans, share, listen=listen, kills=deaths)
        found = _answers_against_traces(bench, done, marks)
        found += checks.traces(bench) + checks.side_effects(bench, marks)
        steps, effects = bench.sql("SELECT count(*) FROM steps")[0][0], len(checks.marks(marks))
    return found, f"{len(done):,} runs, {steps:,} steps, {effects:,} side effects looked at."
