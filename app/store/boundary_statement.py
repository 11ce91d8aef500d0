"""The SQL of the node boundary; what it does and why is told in boundary.py.

Everything is passed as parallel arrays, one element a row, so that one prepared statement carries
one run or a hundred. Ends, parks, starts and spawns name their boundary by its place in the list,
not by its run: a process that has taken over a run of its own may write for the old claim and for
the new one at the same time, and neither may pass under the other's lease.

There are four forms, all made of the same text. The plain one is for boundaries that concern one
run each. The lean one is the same without what is rare (waits, loops, connectors): as nearly all
boundaries are, and some cheaper. The single one is the lean one for a boundary that goes alone, and
ends and starts one step at the most: it takes values in place of arrays, and is cheaper again. The
wide one also starts nested runs, wakes the run above one that has ended, and notes what connectors
have to be told.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from app.domain.lifecycle import (
    AWAIT_APPROVAL,
    BACKOFF,
    DOUBT,
    MOVES,
    OPEN_STEP,
    PAUSED,
    QUEUED,
    RUNNING,
    SKIPPED,
    SLEEP,
    TERMINAL,
    WAITING_APPROVAL,
    sql_list,
)
from app.store import late, outbox
from app.store.leases import DUE_CHANNEL

_ACTIONS = ", ".join(
    f"('{move.name}', '{source}', '{move.target}')" for move in MOVES for source in move.sources
)
_PARKING = f"'{SLEEP.name}', '{AWAIT_APPROVAL.name}'"

# The parameters by group: what each array holds, and its type.
_RUN = {
    **{"run_id": "text", "token": "text", "action": "text", "output": "text", "error": "text"},
    **{"rides": "bool"},
    **{"wait": "float8", "wake_at": "timestamptz"},
}
_ENDS = {
    **{"place": "int", "seq": "int", "end_status": "text", "end_output": "text"},
    **{"end_error": "text", "end_metadata": "text", "tell": "bool", "heard": "bool"},
}
_PARKS = {
    **{"place": "int", "seq": "int", "park_status": "text", "park_until": "timestamptz"},
    **{"park_output": "text", "park_metadata": "text", "spawns": "bool"},
}
_STARTS = {
    **{"place": "int", "seq": "int", "node_id": "text", "node_type": "text", "attempt": "int"},
    **{"status": "text", "input": "text", "output": "text", "metadata": "text", "unsafe": "bool"},
    **{"parent_seq": "int", "iteration": "int", "connector": "text", "callback_sha256": "text"},
}
_SPAWNS = {
    **{"place": "int", "seq": "int", "id": "text", "metronome_id": "text", "version_id": "text"},
    **{"input": "text", "concurrency_key": "text"},
}
# What the lean form does without; it has no parks either.
_RARE = (
    *("wait", "wake_at", "tell", "heard"),
    *("parent_seq", "iteration", "connector", "callback_sha256"),
)


def _merged(more: str) -> str:
    """What a step's metadata becomes: the entries of ``l.<more>`` are put into it."""
    return f"""CASE WHEN l.{more} IS NULL THEN s.metadata
            WHEN s.metadata IS NULL THEN CAST(l.{more} AS json)
            ELSE CAST(CAST(s.metadata AS jsonb) || CAST(l.{more} AS jsonb) AS json) END"""


def _kept(more: str) -> str:
    """The same for a step that ends: what came from outside too late to be heard stays readable."""
    merged = _merged(more)
    return f"CASE WHEN l.heard THEN {merged} ELSE {late.kept(f'({merged})')} END"


# One plan serves tables of any size. A plan that is made while they are small would read them from
# end to end, or all steps of a run, so it is left no other way than by the key:
# ``= ANY (ARRAY[x])`` is an equality that can only be looked up, and OFFSET 0 brings the whole key
# together before that.
#
# The time is taken once a run, after its lock: what ends, what begins and the run itself then tell
# one story, and a cancel that came before, or comes after, compares.
#
# Whoever holds the run may end any open step of it: a step under another lease is one that its
# executor was lost in. A node that was in flight when its run was cancelled and retried may end,
# but not be parked: it is no part of what comes, and its connector knows of the cancel. Such a run
# has not started again. A move that is made ends the claim. A start needs a run that is running,
# ours and in time; a move needs the same but the time: a run that is out of time can still end,
# only not be parked. Where steps ride along that have begun and ended since the last boundary, all
# that follows from them needs the time as well.
_BOUNDARY = f"""
WITH asked AS (
    SELECT * FROM {{run}}
),
locked AS MATERIALIZED (
    SELECT r.id, r.organization_id, r.metronome_id, r.user_id, r.root_run_id, r.depth, r.status,
        r.deadline_at, r.started_at IS NOT NULL AS goes_on, a.*,
        r.lease_token IS NOT DISTINCT FROM a.token AS ours
    FROM asked a JOIN runs r ON r.id = ANY (ARRAY[a.run_id])
    ORDER BY a.run_id
    FOR NO KEY UPDATE OF r
),
held AS MATERIALIZED (
    SELECT k.*, c.now, coalesce(k.deadline_at <= c.now, false) AS late
    FROM locked k, LATERAL (SELECT clock_timestamp() AS now WHERE k.id IS NOT NULL) c
),
ended AS (
    UPDATE steps s SET status = l.end_status,
        output = coalesce(CAST(l.end_output AS json), s.output), error = l.end_error,
        metadata = {_kept("end_metadata")},
        lease_token = NULL, wake_at = NULL,
        completed_at = l.now, updated_at = l.now
    FROM (
        SELECT * FROM {{ends}}
        JOIN held USING (place) OFFSET 0
    ) AS l
    WHERE s.run_id = ANY (ARRAY[l.id]) AND s.seq = l.seq AND s.status IN ({sql_list(OPEN_STEP)})
      AND (s.lease_token = l.token OR l.ours)
    RETURNING s.run_id, s.seq, s.metronome_id, l.organization_id, s.node_id,
        CASE WHEN l.tell THEN s.connector END AS connector
){{parked}},
started AS (
    INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, attempt, status, input,
        output, metadata, parent_seq, iteration, unsafe, connector, callback_sha256, lease_token,
        started_at, completed_at)
    SELECT l.id, b.seq, l.metronome_id, b.node_id, b.node_type, b.attempt, b.status,
        CAST(b.input AS json), CAST(b.output AS json), CAST(b.metadata AS json), b.parent_seq,
        b.iteration, b.unsafe, b.connector, b.callback_sha256,
        CASE WHEN b.status = '{RUNNING}' THEN l.token END,
        CASE WHEN b.status <> '{SKIPPED}' THEN l.now END,
        CASE WHEN b.status <> '{RUNNING}' THEN l.now END
    FROM {{starts}}
    JOIN held l ON l.place = b.place
    WHERE l.ours AND l.status = '{RUNNING}'
      AND NOT (l.late AND (l.rides OR b.status <> '{SKIPPED}'))
),
moved AS (
    UPDATE runs r SET status = t.target,
        output = CAST(l.output AS json), error = l.error,
        completed_at = CASE WHEN t.target IN ({sql_list(TERMINAL)}) THEN l.now END,
        due_at = CASE
            WHEN t.action = '{BACKOFF.name}'
                THEN least(l.now + l.wait * interval '1 second', l.deadline_at)
            WHEN t.action NOT IN ({_PARKING}) THEN NULL
            WHEN r.signalled THEN l.now
            ELSE coalesce(least(l.wake_at, l.deadline_at), 'infinity') END,
        next_attempt_at = CASE
            WHEN t.action = '{BACKOFF.name}' THEN l.now + l.wait * interval '1 second'
            WHEN t.action IN ({_PARKING}) THEN l.wake_at END,
        attempt_due = (t.action = '{BACKOFF.name}'),
        in_doubt = (t.action = '{DOUBT.name}'),
        paused_by = CASE WHEN t.action = '{DOUBT.name}' THEN coalesce(r.paused_by, r.id) END,
        takeovers = 0,
        lease_token = NULL, locked_by = NULL, locked_at = NULL, updated_at = l.now
    FROM held l JOIN (VALUES {_ACTIONS}) AS t (action, source, target)
        ON t.action = l.action AND t.source = l.status
    WHERE r.id = ANY (ARRAY[l.id]) AND l.ours
      AND NOT (l.late AND (l.rides OR t.action IN ({_PARKING})))
    RETURNING r.status, r.parent_run_id, l.now
){{wide}}
SELECT l.status, l.ours, l.late, coalesce(l.now, clock_timestamp()){{called}}
FROM asked a LEFT JOIN held l ON l.place = a.place
ORDER BY a.place
"""

_PARKED = f""",
parked AS (
    UPDATE steps s SET status = l.park_status, wake_at = l.park_until, lease_token = NULL,
        output = coalesce(CAST(l.park_output AS json), s.output),
        metadata = {_merged("park_metadata")}, updated_at = l.now,
        organization_id = CASE WHEN l.park_status = '{WAITING_APPROVAL}'
            THEN l.organization_id END
    FROM (
        SELECT * FROM {{parks}}
        JOIN held USING (place) OFFSET 0
    ) AS l
    WHERE s.run_id = ANY (ARRAY[l.id]) AND s.seq = l.seq AND s.status IN ({sql_list(OPEN_STEP)})
      AND (s.lease_token = l.token OR s.lease_token IS NULL)
      AND l.ours AND l.goes_on AND l.status NOT IN ({sql_list(TERMINAL)})
      AND (NOT l.spawns OR l.status = '{RUNNING}' AND NOT l.late)
    RETURNING s.run_id, s.seq, s.metronome_id, l.organization_id, s.node_id,
        CASE WHEN l.status = '{PAUSED}' THEN s.connector END AS connector
)"""

# The rows of the runs above those that end, and of the roots of the trees that grow, are among
# ``asked`` (with no token and no move): so all locks are taken in the order of the ids.
#
# A boundary whose answer got lost may be written again: then its nested runs are there already. A
# run above that backs off is not hurried: it will look by itself.
_WIDE = f""",
spawned AS (
    INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, version_revision,
        trigger_type, input, concurrency_key, admitted, status, due_at, parent_run_id, parent_seq,
        root_run_id, depth)
    SELECT n.id, l.organization_id, n.metronome_id, l.user_id, n.version_id,
        coalesce((SELECT v.revision FROM versions v WHERE v.id = ANY (ARRAY[n.version_id])), 0),
        'metronome', CAST(n.input AS json), n.concurrency_key, n.concurrency_key IS NULL,
        '{QUEUED}', l.now, l.id, n.seq,
        coalesce(l.root_run_id, l.id), l.depth + 1
    FROM {{spawns}}
    JOIN held l ON l.place = n.place
    WHERE l.ours AND l.status = '{RUNNING}' AND NOT l.late
    ON CONFLICT (id) DO NOTHING
    RETURNING id, organization_id, metronome_id, user_id, version_id, parent_run_id, created_at
),
audited AS (
    INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,
        actor_key_id, run_id, version_id, action, payload, created_at)
    SELECT 'evt_' || substr(id, 5), organization_id, metronome_id, user_id, user_id, 'executor',
        id, version_id, 'run.created',
        json_build_object('triggerType', 'metronome', 'parentRunId', parent_run_id), created_at
    FROM spawned
),
woken AS (
    UPDATE runs p SET signalled = true, due_at = CASE
        WHEN p.lease_token IS NULL AND p.status IN ('{RUNNING}', '{WAITING_APPROVAL}') THEN m.now
        ELSE p.due_at END
    FROM moved m
    WHERE p.id = ANY (ARRAY[m.parent_run_id]) AND m.status IN ({sql_list(TERMINAL)})
      AND p.status NOT IN ({sql_list(TERMINAL)})
    RETURNING p.id
),
noted AS (
    {outbox.insert("ended", "node.cancelled")}
),
noted_pause AS (
    {outbox.insert("parked", "node.paused")}
),
called AS (
    SELECT pg_notify('{DUE_CHANNEL}', '')
    WHERE EXISTS (SELECT FROM woken) OR EXISTS (SELECT FROM spawned)
)"""


_CALLED = ", (SELECT count(*) FROM called)"  # what nobody reads would not be done


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the statement: what its arrays hold, group by group, and three ways to send it.

    Each argument is cast in ``execute`` as well, since a list of nothing but NULLs has no type of
    its own. ``plain`` is for connections on which nothing stays prepared. The ``name`` tells which
    text it is: behind a pooler, an executor of another release may have prepared its own.
    """

    name: str
    run: tuple[str, ...]
    ends: tuple[str, ...]
    parks: tuple[str, ...]
    starts: tuple[str, ...]
    spawns: tuple[str, ...]
    prepare: str
    execute: str
    plain: str


def _rows(columns: dict[str, str], first: int, name: str, *, lean: bool, counted: bool) -> str:
    """SQL for the rows of a group, whose first array is the parameter ``first``."""
    there = _there(columns, lean=lean)
    arrays = ", ".join(f"${first + n}::{columns[one]}[]" for n, one in enumerate(there))
    names = ", ".join([*there, "place"] if counted else there)
    rows = f"unnest({arrays}){' WITH ORDINALITY' if counted else ''} AS {name} ({names})"
    if not (left := _left(columns, there)):
        return rows
    return f"(SELECT {', '.join([f'{name}.*', *left])} FROM {rows}) AS {name}"


def _row(columns: dict[str, str], first: int, name: str, *, counted: bool) -> str:
    """SQL for the one row of a group, whose first value is the parameter ``first``.

    It counts for nothing where its ``place`` is NULL.
    """
    there = _there(columns, lean=True)
    values = [f"${first + n}::{columns[one]} AS {one}" for n, one in enumerate(there)]
    if counted:
        values.append("1 AS place")
    return f"(SELECT {', '.join([*values, *_left(columns, there)])}) AS {name}"


def _left(columns: dict[str, str], there: tuple[str, ...]) -> list[str]:
    """SQL for the columns that are not ``there``."""
    return [
        f"false AS {one}" if columns[one] == "bool" else f"CAST(NULL AS {columns[one]}) AS {one}"
        for one in columns
        if one not in there
    ]


def _there(columns: dict[str, str], *, lean: bool) -> tuple[str, ...]:
    return tuple(one for one in columns if not (lean and one in _RARE))


def _form(name: str, *, lean: bool = False, wide: bool = False, single: bool = False) -> Form:
    groups = {"run": (_RUN, "a"), "ends": (_ENDS, "e"), "parks": (_PARKS, "z")}
    groups |= {"starts": (_STARTS, "b"), "spawns": (_SPAWNS, "n")}
    types: list[str] = []
    rows, there = {}, {}
    for group, (columns, alias) in groups.items():
        used = (group != "parks" or not lean) and (group != "spawns" or wide)
        there[group] = _there(columns, lean=lean) if used else ()
        first, counted = len(types) + 1, group == "run"
        rows[group] = (
            ""
            if not used
            else _row(columns, first, alias, counted=counted)
            if single
            else _rows(columns, first, alias, lean=lean, counted=counted)
        )
        types += [f"{columns[one]}{'' if single else '[]'}" for one in there[group]]
    sql = _BOUNDARY.format(
        run=rows["run"],
        ends=rows["ends"],
        parked="" if lean else _PARKED.format(parks=rows["parks"]),
        starts=rows["starts"],
        wide=_WIDE.format(spawns=rows["spawns"]) if wide else "",
        called=_CALLED if wide else "",
    )
    casts = ", ".join(f"%s::{kind}" for kind in types)
    name = f"{name}_{hashlib.sha256(sql.encode()).hexdigest()[:12]}"
    return Form(
        name=name,
        **there,
        prepare=f"PREPARE {name} ({', '.join(types)}) AS {sql}",
        execute=f"EXECUTE {name} ({casts})",
        plain=re.sub(
            r"\$(\d+)::[a-z0-9]+(\[\])?",
            lambda m: f"%s::{types[int(m[1]) - 1]}",
            sql.replace("%", "%%"),
        ),
    )


SINGLE = _form("single_boundary", lean=True, single=True)
LEAN = _form("lean_boundary", lean=True)
PLAIN = _form("boundary")
WIDE = _form("wide_boundary", wide=True)
FORMS = (SINGLE, LEAN, PLAIN, WIDE)
