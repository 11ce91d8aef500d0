"""The raw rate of the boundary statement: bare psycopg2, with nothing around it.

``python -m benchmarks.raw THREADS NODES`` with DATABASE_URL walks all runs of the table that are
marked as held, one boundary a commit, each thread on a connection of its own, and prints the
seconds that it took. Everything that Python could do beforehand is done before the clock starts.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from app.config import Settings
from app.db import Database, RawConnection
from app.store import boundary
from app.store.boundary import Boundary, Move, StepEnd, StepStart
from app.store.boundary_statement import SINGLE

OUTPUT = '{"n":1}'


def boundaries(run_id: str, metronome_id: str, token: str, nodes: int) -> list[list[Any]]:
    """The arguments of all boundaries of a run: start, one between each two nodes, end."""
    made = []
    for seq in range(1, nodes + 2):
        last = seq == nodes + 1
        one = Boundary(
            run_id,
            metronome_id,
            token,
            ends=[StepEnd(seq - 1, "completed", output=OUTPUT)] if seq > 1 else (),
            starts=() if last else [StepStart(seq, f"n{seq}", "note", 1)],
            move=Move("complete", output=OUTPUT) if last else None,
        )
        made.append(boundary.arguments([one], SINGLE))
    return made


def _send(connection: RawConnection, work: list[list[Any]], begin: threading.Barrier) -> None:
    with connection.cursor() as cursor:
        begin.wait()
        for arguments in work:
            cursor.execute(SINGLE.execute, arguments)
            cursor.fetchall()


def main() -> None:
    """Send everything; print the seconds."""
    threads, nodes = int(sys.argv[1]), int(sys.argv[2])
    db = Database(Settings.from_env().database_url or "")
    with db.raw() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, metronome_id, lease_token FROM runs WHERE status = 'running'")
        held = cursor.fetchall()
    begin = threading.Barrier(threads + 1)
    workers = []
    for number in range(threads):
        connection = db.raw()
        boundary.prepare(connection)
        mine = held[number::threads]
        work = [args for run_id, of, token in mine for args in boundaries(run_id, of, token, nodes)]
        workers.append(threading.Thread(target=_send, args=(connection, work, begin)))
    for worker in workers:
        worker.start()
    begin.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
