"""News for a lease that is over stop nobody who holds the run under another one."""

from __future__ import annotations

import dataclasses
import threading
from typing import ClassVar

from app.db import RawConnection
from app.domain.outcomes import Done, Interrupted, Outcome
from app.engine.holds import Holds
from app.nodes.base import Context, NodeKind
from app.store import leases
from app.store.trees import STOP_CHANNEL
from tests.engine.conftest import Lab, node
from tests.engine.operators import is_whole, retry, sql
from tests.processes import PATIENCE, wait_for


class Patient(NodeKind):
    """Waits until the test opens it, or somebody stops it; keeps what it was called with."""

    kind: ClassVar[str] = "patient"

    def __init__(self) -> None:
        self.calls: list[Context] = []
        self.open = threading.Event()

    def run(self, context: Context) -> Outcome:
        self.calls.append(context)
        wait_for(lambda: self.open.is_set() or context.stop.is_set())
        return Interrupted("stopped") if context.stop.is_set() else Done({})


def listening(lab: Lab) -> RawConnection:
    """A session that hears what executors are told of stops."""
    connection = lab.db.raw(application_name="test listener")
    connection.cursor().execute(f"LISTEN {STOP_CHANNEL}")
    return connection


def cancelled(connection: RawConnection) -> str:
    """What the executors were told of a cancel."""

    def came() -> list[str]:
        connection.poll()
        return [one.payload for one in connection.notifies if one.payload.endswith(" cancelled")]

    return wait_for(came)[0]


def test_a_cancel_that_is_heard_late_does_not_stop_the_retry(lab: Lab) -> None:
    patient = Patient()
    lab.kinds["patient"] = patient
    lab.start(poll=60.0, lease=180.0)
    ears = listening(lab)
    run = lab.queue(node("trigger"), node("patient"), node("end"))
    wait_for(lambda: patient.calls)
    lab.cancel(run)
    told = cancelled(ears)
    ears.close()
    lab.until(run, "cancelled")
    retry(lab, run, afresh=False)
    wait_for(lambda: len(patient.calls) == 2)

    sql(lab, "SELECT pg_notify(:channel, :told)", channel=STOP_CHANNEL, told=told)
    lab.until(lab.queue(node("trigger"), node("end")), "completed")  # heard behind that

    assert not patient.calls[1].stop.is_set()
    patient.open.set()
    lab.until(run, "completed")
    is_whole(lab)


def test_of_two_leases_on_a_run_only_the_one_that_is_named_is_stopped(lab: Lab) -> None:
    run = lab.queue(node("trigger"))
    connection = lab.db.raw()
    (first,) = leases.claim(connection, "executor", limit=1, lease=PATIENCE)
    connection.close()
    holds = Holds()
    old, new = holds.add(first), holds.add(dataclasses.replace(first, token="another"))
    holds.told(first.token, "cancelled")
    assert (old.stop.reason, new.stop.is_set()) == ("cancelled", False)
    holds.told(run.id, "cancelled")
    holds.told("nobody's", "cancelled")
    assert not new.stop.is_set()
    holds.told("another", "paused")
    assert (new.stop.is_set(), new.look.is_set()) == (False, True)
