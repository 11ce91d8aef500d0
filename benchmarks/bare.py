"""The raw rate of the cancel's message: bare psycopg2, with nothing around it.

What PostgreSQL does for a cancel takes time of the same processors as the API. ``python -m
benchmarks.bare THREADS PART PARTS`` with DATABASE_URL cancels every PARTS-th of the queued runs,
each thread on a connection of its own. It says that it is ready, waits for a line, and prints the
seconds that it took. Everything that Python could do beforehand is done before.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from app.config import Settings
from app.db import Database, RawConnection
from app.services import keys
from app.store import cancels, proof
from benchmarks.server import KEY, Bench, Plan, queue
from tests.processes import ROOT, environment

PROCESSES = 2
_MESSAGE = cancels.MESSAGE.proving


def rate(bench: Bench, plan: Plan, *, count: int, connections: int) -> float:
    """Cancels a second of ``count`` runs, by two processes, as the API has."""
    queue(bench.connection, plan, count, notify=False)
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.bare"),
                *(str(connections // PROCESSES), str(number), str(PROCESSES)),
            ],
            env=environment(bench.settings),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    seconds = max(float(process.communicate(timeout=300)[0]) for process in started)
    assert not bench.sql("SELECT 1 FROM runs WHERE status = 'queued'")
    return count / seconds


def _send(connection: RawConnection, work: list[dict[str, Any]]) -> None:
    with connection.cursor() as cursor:
        for values in work:
            cursor.execute(_MESSAGE.again, values)
            cursor.fetchall()


def main() -> None:
    """Send everything; print the seconds."""
    threads, part, parts = (int(one) for one in sys.argv[1:])
    db = Database(Settings.from_env().database_url or "")
    actor = replace(keys.authenticate(db, KEY), remembered=True)
    with db.raw() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, metronome_id FROM runs WHERE status = 'queued' ORDER BY id")
        mine = cursor.fetchall()[part::parts]
    work = [cancels.values(actor, of, run_id) | proof.proven(actor) for run_id, of in mine]
    workers = []
    for number in range(threads):
        connection = db.raw()
        with connection.cursor() as cursor:  # of a run that is not there: it is only prepared
            cursor.execute(_MESSAGE.first, {**work[0], "run_id": "run_0"})
        workers.append(threading.Thread(target=_send, args=(connection, work[number::threads])))
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
