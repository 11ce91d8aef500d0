"""What the database itself writes down while runs are stressed: nothing can be changed unseen.

Triggers note each change of a run's status, with its transaction, and every change of what had
ended. Audit events get the transaction that wrote them. So at the end it can be asked in SQL
whether each change is one that the lifecycle allows, was asked for, and was told.
"""

from __future__ import annotations

from app.domain.lifecycle import (
    ACTIONS,
    CANCELLED,
    COMPLETED,
    FAILED,
    MOVES,
    PAUSED,
    QUEUED,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
    sql_list,
)
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED
from benchmarks.checks import Violations
from benchmarks.server import Bench

_ALLOWED = ", ".join(
    sorted({f"('{source}', '{a.target}')" for a in (*ACTIONS, *MOVES) for source in a.sources})
)
# What may still change of a run that has ended: an executor lets go of it.
_LEASE = "ARRAY['lease_token', 'locked_by', 'locked_at', 'due_at']"

INSTALL = f"""
CREATE TABLE ledger_changes (run_id text, at timestamptz, xid xid8, old text, new text,
    was_in_doubt bool, in_doubt bool, base_seq int);
CREATE TABLE ledger_faults (what text, run_id text, seq int, before jsonb, after jsonb);
ALTER TABLE audit_events ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();

CREATE FUNCTION ledger_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.status IN ({sql_list(TERMINAL)}) AND NEW.status = OLD.status THEN
        IF to_jsonb(OLD) - {_LEASE} IS DISTINCT FROM to_jsonb(NEW) - {_LEASE} THEN
            INSERT INTO ledger_faults VALUES ('a run that had ended', OLD.id, NULL, to_jsonb(OLD),
                to_jsonb(NEW));
        END IF;
    ELSE
        INSERT INTO ledger_changes VALUES (NEW.id, clock_timestamp(), pg_current_xact_id(),
            OLD.status, NEW.status, OLD.in_doubt, NEW.in_doubt, NEW.base_seq);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_run AFTER UPDATE ON runs FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.in_doubt IS DISTINCT FROM NEW.in_doubt
        OR OLD.base_seq IS DISTINCT FROM NEW.base_seq OR OLD.status IN ({sql_list(TERMINAL)}))
    EXECUTE FUNCTION ledger_run();

CREATE FUNCTION ledger_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF to_jsonb(OLD) - 'metadata' IS DISTINCT FROM to_jsonb(NEW) - 'metadata'
        OR coalesce(OLD.metadata::jsonb, '{{}}')
            IS DISTINCT FROM coalesce(NEW.metadata::jsonb, '{{}}') - 'lateCallback'
    THEN
        INSERT INTO ledger_faults VALUES ('a step that had ended', OLD.run_id, OLD.seq,
            to_jsonb(OLD), to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_step AFTER UPDATE ON steps FOR EACH ROW
    WHEN (OLD.completed_at IS NOT NULL) EXECUTE FUNCTION ledger_step();

CREATE FUNCTION ledger_gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO ledger_faults VALUES (TG_ARGV[0], NULL, NULL, to_jsonb(OLD), NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_gone AFTER DELETE ON runs FOR EACH ROW
    EXECUTE FUNCTION ledger_gone('a run that is gone');
CREATE TRIGGER ledger_gone AFTER DELETE ON steps FOR EACH ROW
    EXECUTE FUNCTION ledger_gone('a step that is gone');
"""

# Where a step is in its run, whatever the attempt: what came before a retry from the start is
# another place, and a loop that goes on where it was closed is the same one.
_PLACES = """
CREATE TEMP TABLE places AS
WITH RECURSIVE bases AS (
    SELECT DISTINCT run_id, base_seq FROM ledger_changes
),
loops AS (
    SELECT run_id, seq, seq AS first, 'step_' || substr(run_id, 5) || '_' || lpad(seq::text, 6, '0')
        AS id
    FROM steps WHERE node_type = 'loop' AND metadata -> 'continues' IS NULL
    UNION ALL
    SELECT s.run_id, s.seq, l.first, 'step_' || substr(s.run_id, 5) || '_'
        || lpad(s.seq::text, 6, '0')
    FROM loops l JOIN steps s ON s.run_id = l.run_id AND s.metadata ->> 'continues' = l.id
)
SELECT s.run_id, s.seq, concat_ws('/',
    (SELECT count(*) FROM bases b WHERE b.run_id = s.run_id AND b.base_seq < s.seq),
    l.first, s.iteration, s.node_id) AS place
FROM steps s LEFT JOIN loops l ON l.run_id = s.run_id AND l.seq = s.parent_seq;
CREATE INDEX ON places (run_id, seq);
CREATE INDEX ON places (run_id, place);
CREATE INDEX ON ledger_changes (run_id, at);
CREATE INDEX ON ledger_changes (xid);
CREATE INDEX ON audit_events (xid);
ANALYZE
"""

# The status that a run had at a moment: that of the last change before it.
_STATUS_AT = """
    (SELECT c.new FROM ledger_changes c WHERE c.run_id = {run} AND c.at <= {moment}
     ORDER BY c.at DESC LIMIT 1)"""
_LINE = f"""
    WITH RECURSIVE line (id, above) AS (
        SELECT id, parent_run_id FROM runs WHERE parent_run_id IS NOT NULL
        UNION ALL
        SELECT l.id, r.parent_run_id FROM line l JOIN runs r ON r.id = l.above
        WHERE r.parent_run_id IS NOT NULL
    ),
    ends AS (
        SELECT run_id, at, coalesce((SELECT min(n.at) FROM ledger_changes n
            WHERE n.run_id = c.run_id AND n.at > c.at AND n.new <> c.new), 'infinity') AS until
        FROM ledger_changes c WHERE new IN ({sql_list(TERMINAL)})
    )"""

# Each lists violations.
CHECKS = {
    "changes of what had ended": "SELECT what, run_id, seq, before, after FROM ledger_faults",
    "changes of status that the lifecycle does not have": f"""
        SELECT run_id, old, new FROM ledger_changes
        WHERE old <> new AND (old, new) NOT IN (VALUES {_ALLOWED})""",
    "changes without exactly one audit event of their own": f"""
        SELECT c.run_id, c.old, c.new, c.at, count(a.id) FROM ledger_changes c
        LEFT JOIN audit_events a ON a.run_id = c.run_id AND a.xid = c.xid
          AND a.action = ANY (CASE
            WHEN c.new = '{CANCELLED}' THEN '{{run.cancelled}}'
            WHEN c.old IN ({sql_list(TERMINAL)}) THEN '{{run.retried}}'
            WHEN c.new = '{PAUSED}' THEN '{{run.paused}}'
            WHEN c.old = '{PAUSED}' THEN '{{run.resumed,run.retried}}'
            ELSE '{{run.approved,run.rejected}}' END::text[])
        WHERE c.old <> c.new AND (
            c.new = '{CANCELLED}' OR c.old IN ({sql_list(TERMINAL)})
            OR c.new = '{PAUSED}' AND NOT c.in_doubt OR c.old = '{PAUSED}'
            OR c.old = '{WAITING_APPROVAL}' AND c.new = '{QUEUED}')
        GROUP BY c.run_id, c.old, c.new, c.at HAVING count(a.id) <> 1""",
    "audit events that tell of no change": """
        SELECT a.run_id, a.action, a.created_at FROM audit_events a
        WHERE a.action IN ('run.cancelled', 'run.paused', 'run.resumed', 'run.retried')
          AND a.payload -> 'held' IS NULL AND NOT EXISTS (
            SELECT FROM ledger_changes c WHERE c.run_id = a.run_id AND c.xid = a.xid
              AND c.old <> c.new)""",
    "decisions without exactly one audit event": """
        SELECT s.run_id, s.seq, count(a.id) FROM steps s
        LEFT JOIN audit_events a ON a.run_id = s.run_id AND a.action = CASE
            s.result ->> 'decision' WHEN 'approved' THEN 'run.approved' ELSE 'run.rejected' END
          AND right(a.payload ->> 'stepId', 6)::int = s.seq
        WHERE s.result -> 'decision' IS NOT NULL
        GROUP BY s.run_id, s.seq HAVING count(a.id) <> 1""",
    "audit events of decisions that nobody kept": """
        SELECT a.run_id, a.action, a.payload FROM audit_events a
        LEFT JOIN steps s ON s.run_id = a.run_id
          AND s.seq = right(a.payload ->> 'stepId', 6)::int
        WHERE a.action IN ('run.approved', 'run.rejected')
          AND substr(a.action, 5) IS DISTINCT FROM s.result ->> 'decision'""",
    "runs without exactly one audit event of their begin": """
        SELECT r.id, count(a.id) FROM runs r
        LEFT JOIN audit_events a ON a.run_id = r.id AND a.action = 'run.created'
        GROUP BY r.id HAVING count(a.id) <> 1""",
    "steps that started while their run was not running": f"""
        SELECT run_id, seq, node_id, started_at, status FROM (
            SELECT s.*, {_STATUS_AT.format(run="s.run_id", moment="s.started_at")} AS was
            FROM steps s WHERE s.started_at IS NOT NULL
        ) s WHERE was IS DISTINCT FROM '{RUNNING}'""",
    "runs that began while the one above was not running": f"""
        SELECT id, parent_run_id, created_at, was FROM (
            SELECT r.*, {_STATUS_AT.format(run="r.parent_run_id", moment="r.created_at")} AS was
            FROM runs r WHERE r.parent_run_id IS NOT NULL
        ) r WHERE was IS DISTINCT FROM '{RUNNING}'""",
    "steps that started below a run that had ended": f"""{_LINE}
        SELECT s.run_id, s.seq, e.run_id FROM line l
        JOIN ends e ON e.run_id = l.above JOIN steps s ON s.run_id = l.id
        WHERE s.started_at > e.at AND s.started_at < e.until""",
    "runs that outlived the end of one above": f"""{_LINE}
        SELECT c.id, c.status, c.completed_at, e.run_id, e.at FROM line l
        JOIN ends e ON e.run_id = l.above JOIN runs c ON c.id = l.id
        WHERE c.created_at < e.at AND (c.completed_at IS NULL OR c.completed_at > e.at)""",
    "steps that started below a run that was paused": f"""{_LINE},
        pauses AS (
            SELECT c.run_id, c.at, c.xid, coalesce((SELECT min(n.at) FROM ledger_changes n
                WHERE n.run_id = c.run_id AND n.at > c.at AND n.new <> '{PAUSED}'), 'infinity')
                AS until
            FROM ledger_changes c WHERE c.new = '{PAUSED}' AND c.old <> '{PAUSED}'
              AND EXISTS (SELECT FROM audit_events a WHERE a.xid = c.xid)
        )
        SELECT s.run_id, s.seq, s.started_at, p.run_id FROM line l
        JOIN pauses p ON p.run_id = l.above JOIN steps s ON s.run_id = l.id
        WHERE s.started_at > p.at AND s.started_at < p.until AND NOT EXISTS (
            SELECT FROM ledger_changes c WHERE c.run_id = s.run_id AND c.old = '{PAUSED}'
              AND c.at > p.at AND c.at < s.started_at)""",
    "finished nodes run twice in one iteration": f"""
        SELECT s.run_id, p.place, array_agg(s.seq) FROM steps s JOIN places p USING (run_id, seq)
        WHERE s.status = '{COMPLETED}' GROUP BY s.run_id, p.place HAVING count(*) > 1""",
    "nodes started again after they finished in that iteration": f"""
        SELECT s.run_id, p.place, s.seq FROM steps s JOIN places p USING (run_id, seq)
        JOIN places q ON q.run_id = p.run_id AND q.place = p.place AND q.seq < p.seq
        JOIN steps d ON d.run_id = q.run_id AND d.seq = q.seq AND d.status = '{COMPLETED}'
        WHERE s.started_at IS NOT NULL""",
    "nodes in flight twice at a time": """
        SELECT s.run_id, p.place, s.seq, t.seq FROM steps s JOIN places p USING (run_id, seq)
        JOIN places q ON q.run_id = p.run_id AND q.place = p.place AND q.seq > p.seq
        JOIN steps t ON t.run_id = q.run_id AND t.seq = q.seq
        WHERE t.started_at < s.completed_at AND s.started_at IS NOT NULL""",
    "attempts of a node that were started twice": """
        SELECT s.run_id, p.place, s.attempt FROM steps s JOIN places p USING (run_id, seq)
        WHERE s.started_at IS NOT NULL GROUP BY s.run_id, p.place, s.attempt
        HAVING count(*) > 1""",
    "unsafe nodes that ran again though nobody said so": f"""
        SELECT s.run_id, p.place, s.seq, t.seq FROM steps s JOIN places p USING (run_id, seq)
        JOIN places q ON q.run_id = p.run_id AND q.place = p.place AND q.seq > p.seq
        JOIN steps t ON t.run_id = q.run_id AND t.seq = q.seq
        WHERE s.unsafe AND s.error IN ('{EXECUTOR_LOST}', '{EXECUTOR_STOPPED}')
          AND t.started_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM ledger_changes c WHERE c.run_id = s.run_id AND c.new = '{QUEUED}'
              AND (c.was_in_doubt OR c.old IN ({sql_list(TERMINAL)}))
              AND c.at > s.started_at AND c.at < t.started_at)""",
    "news that came, and were neither heard nor kept": f"""
        SELECT run_id, seq, status, error, result FROM steps
        WHERE result IS NOT NULL AND metadata -> 'lateCallback' IS NULL
          AND metadata -> 'lateDecision' IS NULL AND (status = '{CANCELLED}'
            OR error IN ('{EXECUTOR_LOST}', '{EXECUTOR_STOPPED}'))""",
    "nested runs whose step is not theirs": """
        SELECT r.id, r.parent_run_id, r.parent_seq, s.node_type FROM runs r
        LEFT JOIN steps s ON s.run_id = r.parent_run_id AND s.seq = r.parent_seq
        WHERE r.parent_run_id IS NOT NULL
          AND s.metadata ->> 'childRunId' IS DISTINCT FROM r.id""",
    "steps that wait for a run that does not exist": """
        SELECT s.run_id, s.seq FROM steps s WHERE s.metadata -> 'childRunId' IS NOT NULL
          AND NOT EXISTS (
            SELECT FROM runs r WHERE r.id = s.metadata ->> 'childRunId'
              AND r.parent_run_id = s.run_id AND r.parent_seq = s.seq)""",
    "steps that ended otherwise than their nested run": f"""
        SELECT s.run_id, s.seq, s.status, r.status FROM steps s
        JOIN runs r ON r.id = s.metadata ->> 'childRunId'
        WHERE s.status = '{COMPLETED}' AND r.status <> '{COMPLETED}'""",
    "runs that failed for an internal error": f"""
        SELECT id, error FROM runs WHERE status = '{FAILED}' AND error LIKE 'internal error%%'""",
    "messages to connectors that were given up, or are left": """
        SELECT run_id, seq, event, attempts, due_at, error FROM outbox""",
}

# What holds at every moment, in one snapshot.
ALWAYS = {
    "runs that go on below one that has ended": f"""
        SELECT c.id, c.status, p.id, p.status FROM runs c JOIN runs p ON p.id = c.parent_run_id
        WHERE p.status IN ({sql_list(TERMINAL)}) AND c.status NOT IN ({sql_list(TERMINAL)})""",
    "open steps of runs that have ended and that nobody holds": f"""
        SELECT s.run_id, s.seq, s.status FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE s.completed_at IS NULL AND r.lease_token IS NULL
          AND r.status IN ({sql_list(TERMINAL)})""",
    "steps in flight under a claim that is over": """
        SELECT s.run_id, s.seq FROM steps s JOIN runs r ON r.id = s.run_id
        WHERE s.lease_token IS NOT NULL AND r.lease_token IS NULL""",
    "runs with news that nobody is to look at": f"""
        SELECT r.id, r.status, r.due_at, s.seq FROM runs r
        JOIN steps s ON s.run_id = r.id AND s.completed_at IS NULL AND s.seq > r.base_seq
        LEFT JOIN runs c ON c.id = s.metadata ->> 'childRunId'
        WHERE r.status IN ('{RUNNING}', '{WAITING_APPROVAL}') AND r.lease_token IS NULL
          AND r.due_at > clock_timestamp()
          AND (s.result IS NOT NULL OR c.completed_at IS NOT NULL)""",
    "runs that wait for what will never come": f"""
        SELECT r.id, r.status FROM runs r
        WHERE r.status NOT IN ({sql_list(TERMINAL)}) AND r.due_at = 'infinity' AND NOT EXISTS (
            SELECT FROM steps s LEFT JOIN runs c ON c.id = s.metadata ->> 'childRunId'
            WHERE s.run_id = r.id AND s.completed_at IS NULL AND s.seq > r.base_seq AND (
                s.wake_at IS NOT NULL
                OR s.metadata ->> 'waitsFor' IN ('approval', 'callback') AND s.result IS NULL
                OR c.completed_at IS NULL AND c.id IS NOT NULL))""",
}


def install(bench: Bench) -> None:
    """Have the database note everything from now on."""
    bench.sql(INSTALL)


def snapshot(bench: Bench) -> list[Violations]:
    """What is not as it should be at this moment."""
    return [found for name, query in ALWAYS.items() if (found := _found(bench, name, query)).count]


def judge(bench: Bench) -> list[Violations]:
    """Every check of what the database has noted, with what it found; once, at the end."""
    bench.sql(_PLACES)
    return [_found(bench, name, query) for name, query in {**ALWAYS, **CHECKS}.items()]


def _found(bench: Bench, name: str, query: str) -> Violations:
    rows = bench.sql(query.replace("%%", "%"))
    return Violations(name, len(rows), rows[:3])
