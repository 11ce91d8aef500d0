"""Keeps what is known of the runs in which a promise was broken: their database will be gone."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from benchmarks.checks import Violations
from benchmarks.operators import Deed
from benchmarks.server import Bench

_ID = re.compile(r"(?:run|step)_([0-9a-f]{32})")
_QUERIES = {
    "run": "SELECT row_to_json(r)::text FROM runs r WHERE id = %s",
    "children": "SELECT json_build_array(id, parent_seq, status, created_at, completed_at)::text"
    " FROM runs WHERE parent_run_id = %s ORDER BY id",
    "steps": "SELECT row_to_json(s)::text FROM steps s WHERE run_id = %s ORDER BY seq",
    "changes": "SELECT row_to_json(c)::text FROM ledger_changes c WHERE run_id = %s ORDER BY at",
    "audit": "SELECT row_to_json(a)::text FROM audit_events a WHERE run_id = %s"
    " ORDER BY created_at",
    "outbox": "SELECT row_to_json(o)::text FROM outbox o WHERE run_id = %s ORDER BY created_at",
    "definition": "SELECT v.definition::text FROM versions v JOIN runs r ON r.version_id = v.id"
    " WHERE r.id = %s",
}


def keep(
    bench: Bench, found: Iterable[Violations], deeds: Sequence[Deed], seed: str
) -> Path | None:
    """Write a file on the runs that the samples name; None where there are none."""
    samples = repr([one.samples for one in found])
    ids = sorted({f"run_{name}" for name in _ID.findall(samples)})
    if not ids:
        return None
    logs = [(path.name, path.read_text(errors="replace")) for path in bench.directory.glob("*.log")]
    known: dict[str, dict[str, object]] = {}
    for run_id in ids:
        known[run_id] = {
            name: [orjson.loads(row[0]) for row in bench.sql(query, run_id)]
            for name, query in _QUERIES.items()
        }
        known[run_id]["requests"] = [
            repr(deed) for deed in deeds if deed.run_id == run_id or run_id in deed.tree
        ]
        known[run_id]["logs"] = [
            f"{name}: {line}" for name, text in logs for line in text.splitlines() if run_id in line
        ]
    path = Path(tempfile.gettempdir()) / f"metronome-stress-{seed.replace('/', '-')}.json"
    path.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2))
    return path
