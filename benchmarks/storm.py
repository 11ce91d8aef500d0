"""Everything at once, for a while: people, crashes, restarts of PostgreSQL, a flaky connector.

A round has a database of its own, an API, three executors and a connector. Random workflows of
graphs.py are started again and again; the people of operators.py cancel, pause, resume, approve and
retry their runs; now and then an executor is killed, frozen for longer than its lease, or told to
end, or PostgreSQL stops or crashes. Then the accidents end, what is paused is resumed, what waits
is approved, and every run has to come to its end. What the database wrote down meanwhile, and what
people, functions and the connector saw, is compared.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from app.domain.lifecycle import TERMINAL, sql_list
from app.services import metronomes
from benchmarks import checks, evidence, graphs, ledger, report, verdicts
from benchmarks.checks import Violations
from benchmarks.connector import CALM, PAGE
from benchmarks.operators import Board, Caller, Deed, Operator, Starter, Target
from benchmarks.reader import Reader
from benchmarks.server import Bench, Server
from tests.connectors import SECRET
from tests.processes import Process, environment, free_port, wait_for

EXECUTORS = 3
PEOPLE = 6
ACTIVE = 30  # runs at the top of a tree that go on at a time
LEASE = 2.0  # seconds
SETTLE = 90.0  # seconds in which all runs have to end once nobody disturbs them
LISTENING = ("on", "off", "mixed")  # whether executors LISTEN: by round


@dataclass(slots=True)
class Found:
    """What happened in a round, and what was not as promised."""

    listen: str
    counts: Counter[str]
    violations: list[Violations]


class Round:
    """One round, in its own database."""

    def __init__(self, postgres: Server, bench: Bench, seed: str, listen: str, url: str) -> None:
        self._postgres = postgres
        self._bench = bench
        self._seed = seed
        self._listen = listen
        self._url = url  # of the connector
        self._dice = random.Random(seed)
        self._marks = postgres.home / f"marks-{bench.directory.name}"
        self._told = bench.directory / "connector.jsonl"
        self._executors: list[Process] = []
        self._log = postgres.home / "var" / "log" / "postgres.log"
        self._log_begin = self._log.stat().st_size
        self._connector: Process | None = None
        self._frozen: dict[int, float] = {}  # place of an executor: when it goes on
        self._away: list[tuple[float, float]] = []
        self._killed: list[float] = []  # when API processes were
        self._strange: list[Violations] = []
        self._died: dict[int, str] = {}  # by process id
        self._counts: Counter[str] = Counter()
        self._ended = threading.Event()
        self._last = Caller(bench, "the last one")  # who brings everything to its end

    def run(self, seconds: float) -> Found:
        """Storm for ``seconds``, settle, and check."""
        bench = self._bench
        ledger.install(bench)
        self._start_connector()
        self._api = bench.start_api()
        self._executors = [self._start_executor(place) for place in range(EXECUTORS)]
        for process in self._executors:
            bench.wait_for_executor(process)
        with self._people() as deeds:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                self._accident(until)
                self._watch()
            self._thaw(everybody=True)
            self._ended.set()
        left, last = self._settle()
        self._counts["requests"] = len(deeds) + len(last)
        self._stop()
        return self._judge([*deeds, *last], left)

    # -- who takes part

    def _start_connector(self) -> None:
        bench = self._bench
        self._connector = Process(
            ["-m", "benchmarks.connector", self._url.rpartition(":")[2], str(self._told)],
            bench.directory / "connector.log",
            environment(bench.settings, CONNECTOR_SECRET=SECRET),
        )
        bench.processes.append(self._connector)
        wait_for(self._told.exists, message="the connector's start")

    def _start_executor(self, place: int) -> Process:
        listens = self._listen == "on" or (self._listen == "mixed" and place % 2 == 0)
        switch = "on" if listens else "off"
        return self._bench.start_executor(wait=False, METRONOME_LISTEN=switch)

    @contextmanager
    def _people(self) -> Iterator[list[Deed]]:
        """Operators and a starter; at the end all that they asked for."""
        bench, page = self._bench, self._url + PAGE

        def save(name: str, definition: dict[str, Any]) -> str:
            return metronomes.create(bench.db, bench.actor, name=name, definition=definition).id

        workflows = graphs.family(self._dice, self._marks, page, save)
        board = Board(bench)
        callers = [Caller(bench, f"operator {number}") for number in range(PEOPLE + 1)]
        threads: list[Operator | Starter] = [
            Operator(caller, board, f"{self._seed}/{place}", self._ended)
            for place, caller in enumerate(callers[1:])
        ]
        threads.append(Starter(callers[0], board, workflows, self._seed, self._ended, most=ACTIVE))
        deeds: list[Deed] = []
        for thread in threads:
            thread.start()
        try:
            yield deeds
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()
            board.close()
            for caller in callers:
                caller.close()
        for thread in threads:
            if thread.error is not None:
                raise thread.error
        deeds += [deed for caller in callers for deed in caller.deeds]

    # -- accidents

    def _accident(self, until: float) -> None:
        """Wait a little, then let something happen; most of the time to an executor."""
        moment = min(until, time.monotonic() + self._dice.uniform(0.3, 1.5))
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
            self._thaw()
        accidents: list[tuple[float, Callable[[], None]]] = [
            (6, self._kill),
            (2, self._freeze),
            (1, self._terminate),
            (1, self._kill_api),
            (0.7, lambda: self._restart(signal.SIGINT)),
            (0.7, lambda: self._restart(signal.SIGQUIT)),
        ]
        (accident,) = self._dice.choices([a for _, a in accidents], [w for w, _ in accidents])
        accident()

    def _victim(self) -> int:
        return self._dice.choice([p for p in range(EXECUTORS) if p not in self._frozen] or [0])

    def _kill(self) -> None:
        place = self._victim()
        self._executors[place].kill9()
        self._replace(place, "executors killed")

    def _terminate(self) -> None:
        place = self._victim()
        self._thaw(everybody=place in self._frozen)
        self._bench.wait_for_executor(self._executors[place])  # before, it can't be told
        if code := self._executors[place].terminate():
            self._died[self._executors[place].pid] = f"told to end: exit code {code}"
        self._replace(place, "executors told to end")

    def _replace(self, place: int, what: str) -> None:
        self._frozen.pop(place, None)
        self._bench.processes.remove(self._executors[place])
        self._executors[place] = self._start_executor(place)
        self._counts[what] += 1

    def _freeze(self) -> None:
        """Like a virtual machine that is paused: it goes on, and does not know what it missed."""
        place = self._victim()
        self._executors[place].signal(signal.SIGSTOP)
        self._frozen[place] = time.monotonic() + self._dice.uniform(0.5, 2.0) * LEASE
        self._counts["executors frozen for a while"] += 1

    def _kill_api(self) -> None:
        """One of its worker processes; gunicorn starts another."""
        children = Path(f"/proc/{self._api.pid}/task/{self._api.pid}/children").read_text()
        if workers := children.split():
            os.kill(int(self._dice.choice(workers)), signal.SIGKILL)
            self._killed.append(time.time())
            self._counts["API processes killed"] += 1

    def _thaw(self, *, everybody: bool = False) -> None:
        for place, moment in list(self._frozen.items()):
            if everybody or moment < time.monotonic():
                self._executors[place].signal(signal.SIGCONT)
                del self._frozen[place]

    def _restart(self, how: signal.Signals) -> None:
        embedded = self._postgres.embedded
        assert embedded is not None
        down = time.time()
        os.kill(embedded.pid or 0, how)
        wait_for(lambda: embedded.pid is None)
        time.sleep(self._dice.choice((0.0, 0.0, 0.5)))
        embedded.stop()
        embedded.start()
        self._bench.reconnect()
        self._away.append((down, time.time()))
        what = "stopped and started" if how == signal.SIGINT else "crashed and started"
        self._counts[f"PostgreSQL {what}"] += 1

    def _watch(self) -> None:
        """Nobody dies by himself, and what always holds, holds now."""
        for process in self._bench.processes:
            if process.returncode is not None and process.pid not in self._died:
                told = f"exit code {process.returncode}: {process.logs()[-2000:]}"
                self._died[process.pid] = told
        try:
            self._strange += ledger.snapshot(self._bench)
        except psycopg2.OperationalError:
            self._bench.reconnect()
        self._counts["looks at everything"] += 1

    # -- the end

    def _settle(self) -> tuple[list[tuple[Any, ...]], list[Deed]]:
        """Let everything come to its end: what did not, and what was asked for meanwhile."""
        request = urllib.request.Request(self._url + CALM, method="POST")
        urllib.request.urlopen(request, timeout=10).close()
        caller, reader = self._last, Reader(self._bench.db)
        until = time.monotonic() + SETTLE
        try:
            while left := reader.rows(_LEFT):
                if time.monotonic() > until:
                    break
                for run_id, metronome_id, status, in_doubt, *_, long in left:
                    target = Target(run_id, metronome_id, status, in_doubt, run_id, False)
                    if long:
                        caller.act("cancel", target, {})
                    elif status == "paused":
                        caller.act("resume", target, {"confirmInDoubtReplay": True})
                    elif status == "waiting_approval":
                        caller.act("approve", target, {})
                time.sleep(0.2)
                self._watch()
        finally:
            caller.close()
            reader.close()
        return left, caller.deeds

    def _stop(self) -> None:
        for process in list(self._bench.processes):
            code = process.terminate()
            if code and process is not self._connector:
                self._died.setdefault(process.pid, f"told to end: exit code {code}")
            self._bench.processes.remove(process)

    def _postgres_log(self) -> str:
        """What PostgreSQL has logged in this round."""
        with self._log.open("rb") as log:
            log.seek(self._log_begin)
            return log.read().decode(errors="replace")

    def _judge(self, deeds: list[Deed], left: list[tuple[Any, ...]]) -> Found:
        bench = self._bench
        died = list(self._died.values())
        found = [
            Violations("runs, leases or messages that did not come to an end", len(left), left[:3]),
            Violations("processes that died by themselves", len(died), died[:3]),
        ]
        found += [one for one in checks.traces(bench) if one.name not in _NOT_HERE]
        found += self._strange + ledger.judge(bench)
        found += verdicts.Judge(
            bench, deeds, self._marks, away=self._away, killed=self._killed
        ).all()
        found += verdicts.connector(bench, self._told)
        found += verdicts.logs(bench.directory) + verdicts.database_log(self._postgres_log())
        if kept := evidence.keep(bench, found, deeds, self._seed):
            print(f"What is known of the runs below is in {kept}", flush=True)
        counts = _counted(bench, deeds, self._marks) + self._counts
        return Found(self._listen, counts, found)


# All that is left to be done; and whether only a cancel ends it within reason.
_LEFT = f"""
SELECT r.id, r.metronome_id, r.status, r.in_doubt, r.locked_by, r.due_at, EXISTS (
    SELECT FROM steps s WHERE s.run_id = r.id AND s.completed_at IS NULL
      AND s.node_type = 'delay' AND s.wake_at > clock_timestamp() + interval '60 seconds')
FROM runs r WHERE r.status NOT IN ({sql_list(TERMINAL)}) OR r.lease_token IS NOT NULL
UNION ALL
SELECT run_id, metronome_id, 'message', false, error, due_at, false FROM outbox
WHERE due_at IS NOT NULL
"""
# These are for workflows without loops; the ledger has what takes their place.
_NOT_HERE = frozenset(
    (
        "finished nodes run twice",
        "nodes started again after they finished",
        "attempts that were started twice",
    )
)


def _counted(bench: Bench, deeds: list[Deed], marks: Path) -> Counter[str]:
    """The figures of a round."""
    ((runs, nested, steps, loops, told, doubts, lost),) = bench.sql("""
        SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM runs WHERE depth > 0),
            (SELECT count(*) FROM steps), (SELECT count(*) FROM steps WHERE iteration IS NOT NULL),
            (SELECT count(*) FROM steps WHERE connector IS NOT NULL),
            (SELECT count(*) FROM ledger_changes WHERE in_doubt AND NOT was_in_doubt),
            (SELECT count(*) FROM steps WHERE error LIKE 'executor %')""")
    counts = Counter(
        {
            "runs": runs,
            "of these nested": nested,
            "steps": steps,
            "of these inside of loops": loops,
            "of these sent to the connector": told,
            "of these with their executor lost": lost,
            "runs in doubt": doubts,
            "side effects": len(checks.marks(marks)),
        }
    )
    for status, count in bench.sql("SELECT status, count(*) FROM runs GROUP BY status"):
        counts[f"runs that ended {status}"] += count
    for deed in deeds:
        what = deed.code or ("done" if deed.moved else f"HTTP {deed.status}")
        counts[f"{deed.action}: {'no answer' if deed.status is None else what}"] += 1
    return counts


def _settings(directory: Path, url: str) -> Path:
    """The file that tells executors of the connector."""
    file = directory / f"connectors-{url.rpartition(':')[2]}.toml"
    file.write_text(
        "\n".join(
            f'[connectors.{kind}]\nurl = "{url}/{kind}"\nsecret = "{SECRET}"\n'
            f"timeoutSeconds = 2\ncallbackTimeoutSeconds = 6\nheartbeatSeconds = 3\n{more}"
            for kind, more in (("action", ""), ("firecrawl", "replaySafe = true"))
        )
    )
    return file


def storm(postgres: Server, seed: str, listen: str, seconds: float) -> Found:
    """One round on a new database of ``postgres``, which is to be our own."""
    url = f"http://127.0.0.1:{free_port()}"
    changes = {
        "lease_seconds": LEASE,
        "poll_seconds": 0.1,
        "grace_seconds": 0.5,
        "web_workers": 2,
        "connectors_file": _settings(postgres.home, url),
    }
    with postgres.bench(**changes) as bench:
        return Round(postgres, bench, seed, listen, url).run(seconds)


def show(rounds: Sequence[Found]) -> None:
    """Print what happened in all rounds, and what was asked for and came of it."""
    total = sum((found.counts for found in rounds), Counter[str]())
    plain = [(name, count) for name, count in total.items() if ": " not in name]
    report.table(f"{len(rounds)} rounds", ("what happened", ""), plain)
    asked = sorted((name, count) for name, count in total.items() if ": " in name)
    report.table("What was asked for, and how it was answered", ("request: outcome", ""), asked)
