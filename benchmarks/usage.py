"""What a process and a database have used so far."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg2

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mb(pid: int) -> float:
    """Megabytes of memory that the process has in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def transactions(url: str, database: str) -> int:
    """How many have ended in ``database``; ``url`` is of another one, so as not to be counted."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s",
                (database,),
            )
            (counted,) = cursor.fetchone() or (0,)
        return int(counted)
    finally:
        connection.close()
