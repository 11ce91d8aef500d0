"""Tells connectors what became of the work that they were given: cancelled, paused, resumed.

The messages are rows of the outbox, which the statement that made them true has written. A few
threads deliver them, each message at least once: a crash between its arrival and its deletion means
that it comes again, with the same webhook-id. What does not arrive is tried again, ever more
rarely, for a day at the most. A connector that is slow or dead keeps only some of the threads busy.
This thread alone speaks to the database.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson
import psycopg2

from app.clock import iso
from app.db import Database
from app.domain.connectors import Connector
from app.domain.jsonvalue import clean_text
from app.domain.stop import StopSignal
from app.engine.link import Disconnected, Link
from app.ids import step_id
from app.nodes import signed
from app.nodes.message import TooBig
from app.nodes.wire import Call, Cut
from app.store import outbox
from app.store.outbox import Notice

log = logging.getLogger(__name__)

THREADS = 8
THREADS_EACH = 2  # of them for one connector
REQUEST_SECONDS = 10.0  # the most that one delivery may take
LEASE_SECONDS = 30.0  # how long a claimed message is left to its process
POLL_SECONDS = 60.0  # where notifications arrive
LEAST_WAIT = 0.05  # seconds between two claims, the first of which found nothing
RETRY_SECONDS = 1.0
MAX_ATTEMPTS = 20
MAX_AGE_SECONDS = 24 * 3600.0
MAX_WAIT_SECONDS = 3600.0  # between two attempts
_ANSWER_BYTES = 1_000_000
_ERROR_LENGTH = 500  # characters


@dataclass(frozen=True, slots=True)
class _End:
    """One delivery; ``error`` is None where the message has arrived."""

    notice: Notice
    error: str | None


class Courier(threading.Thread):
    """Delivers what is due in the outbox until ``end``; ``nudge`` makes it look at once."""

    def __init__(
        self,
        db: Database,
        connectors: Mapping[str, Connector],
        *,
        poll: float,
        listening: Callable[[], bool],
    ) -> None:
        super().__init__(name="courier", daemon=True)
        self._connectors = connectors
        self._poll = poll
        self._listening = listening
        self._link = Link(db, "metronome courier")
        self._wake = threading.Event()
        self._stopping = StopSignal()
        self._busy: Counter[str] = Counter()  # messages that are being delivered, by connector
        self._work: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[_End] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def nudge(self) -> None:
        """Look at once: there is a message, or notifications have begun."""
        self._wake.set()

    def end(self) -> None:
        """Stop; a delivery under way is cut off, and left to another executor."""
        self._stopping.set("shutdown")
        self._wake.set()

    def run(self) -> None:
        """Claim and hand out messages until ``end``."""
        while not self._stopping.is_set():
            try:
                wait = self._round()
            except (Disconnected, psycopg2.Error) as error:
                log.warning("can't use the outbox", extra={"error": str(error).strip()})
                wait = RETRY_SECONDS
            except Exception:  # whatever it was, this thread is needed for the next message
                log.exception("the courier stumbled")
                wait = RETRY_SECONDS
            self._wake.wait(wait)
            self._wake.clear()
        for _ in self._threads:
            self._work.put(None)
        self._link.close()

    def _round(self) -> float:
        """Note what was delivered, hand out what is due; seconds until there may be more."""
        while not self._ends.empty():
            end = self._ends.get()
            self._busy[end.notice.connector] -= 1
            self._note(end)  # where that fails, the claim ends, and it is delivered again
        poll = POLL_SECONDS if self._listening() else self._poll
        while not self._stopping.is_set():
            free = THREADS - self._busy.total()
            full = [name for name, count in self._busy.items() if count >= THREADS_EACH]
            if free <= 0:
                return poll  # the next one that ends wakes us
            due = self._next_due(full)
            if due is None or due > 0:
                return poll if due is None else min(poll, due)
            claimed = self._claim(min(free, THREADS_EACH), full)
            if not claimed:  # overtaken by newer ones, or somebody else is just taking them
                return LEAST_WAIT
            for notice in claimed:
                self._hand_out(notice)
        return 0.0

    def _next_due(self, full: Sequence[str]) -> float | None:
        return self._link.run(lambda c: outbox.next_due(c, busy=full))

    def _claim(self, limit: int, full: Sequence[str]) -> list[Notice]:
        return self._link.run(
            lambda c: outbox.claim(c, limit=limit, lease=LEASE_SECONDS, busy=full)
        )

    def _hand_out(self, notice: Notice) -> None:
        if self._busy.total() >= len(self._threads):
            name = f"courier-{len(self._threads)}"
            thread = threading.Thread(target=self._deliver, name=name, daemon=True)
            thread.start()  # where the system has none left, the claim of the message ends
            self._threads.append(thread)
        self._busy[notice.connector] += 1
        self._work.put(notice)

    def _deliver(self) -> None:
        while (notice := self._work.get()) is not None:
            try:
                error = self._send(notice)
            except Exception as fault:
                log.exception("a message can't be sent", extra=_of(notice))
                error = f"{type(fault).__name__}: {fault}"
            self._ends.put(_End(notice, error))
            self._wake.set()

    def _note(self, end: _End) -> None:
        notice = end.notice
        if end.error is None:
            log.info("connector told", extra=_of(notice))
            return self._link.run(lambda c: outbox.delivered(c, notice))
        error = clean_text(end.error, _ERROR_LENGTH)
        wait = min(MAX_WAIT_SECONDS, 2.0 ** (notice.attempts - 1))
        wait *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, no secret
        given_up = self._link.run(
            lambda c: outbox.failed(
                c, notice, error=error, wait=wait, most=MAX_ATTEMPTS, age=MAX_AGE_SECONDS
            )
        )
        told = "connector given up" if given_up else "connector not told, trying again"
        log.warning(told, extra={**_of(notice), "error": error})
        return None

    def _send(self, notice: Notice) -> str | None:
        """Send it once; what went wrong, or None."""
        connector = self._connectors.get(notice.connector)
        if connector is None:
            return f"this executor has no connector '{notice.connector}'"
        seconds = min(REQUEST_SECONDS, connector.timeout_ms / 1000)
        with Call(self._stopping, seconds) as call:
            try:
                answer = signed.post(
                    call,
                    connector,
                    message_id=notice.id,
                    moment=notice.now,
                    body=orjson.dumps(_body(notice)),
                    most=_ANSWER_BYTES,
                )
            except Cut:
                return f"no answer within {seconds:g} s"
            except TooBig:
                return f"the answer is bigger than {_ANSWER_BYTES:,} bytes"
            except signed.Unanswered as error:
                return str(error)
        return None if 200 <= answer.status < 300 else f"HTTP {answer.status}"


def _body(notice: Notice) -> dict[str, object]:
    """What the connector is told; ``at`` is when it came about, which orders the messages."""
    reason = notice.step_error or notice.run_error
    if reason is None and notice.run_status is not None:
        reason = f"the run is {notice.run_status}"
    return {
        "type": notice.event,
        "runId": notice.run_id,
        "metronomeId": notice.metronome_id,
        "organizationId": notice.organization_id,
        "stepId": step_id(notice.run_id, notice.seq),
        "nodeId": notice.node_id,
        "nodeKind": notice.node_kind,
        "reason": reason,
        "at": iso(notice.created_at),
    }


def _of(notice: Notice) -> dict[str, str]:
    """The ids that belong into a log line."""
    return {
        "runId": notice.run_id,
        "stepId": step_id(notice.run_id, notice.seq),
        "connector": notice.connector,
        "event": notice.event,
    }
