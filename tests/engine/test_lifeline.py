"""The ring in which executors watch each other, and where it is given up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.engine import lifeline
from app.engine.lifeline import AGAIN_SECONDS, GRACE_SECONDS, WATCH_SECONDS, Lifeline, Ring
from app.store import liveness
from app.store.liveness import Peer
from tests.engine.conftest import Lab, node
from tests.processes import PATIENCE

Wait = Callable[..., Any]


def _peers(**held: int | None) -> list[Peer]:
    return [Peer(name, 0, pid) for name, pid in sorted(held.items())]


@pytest.mark.parametrize(
    ("me", "held", "watched"),
    [
        ("a", {"a": 1}, None),
        ("a", {"a": 1, "b": 2, "c": 3}, "b"),
        ("b", {"a": 1, "b": 2, "c": 3}, "c"),
        ("c", {"a": 1, "b": 2, "c": 3}, "a"),
        ("a", {"a": 1, "b": None, "c": 3}, "c"),
        ("c", {"a": None, "b": 2, "c": 3}, "b"),
        ("b", {"a": None, "b": 2}, None),
    ],
)
def test_the_next_one_that_holds_its_lock_is_watched(
    me: str, held: dict[str, int | None], watched: str | None
) -> None:
    ring = Ring(me)
    ring.saw(_peers(**held), 0)
    found = ring.next()
    assert (found and found.id) == watched


def test_who_lacks_a_lock_has_the_grace_and_is_then_looked_at_ever_more_rarely() -> None:
    ring = Ring("a")
    ring.saw(_peers(a=None, b=1), 0)
    assert (ring.wait(0), ring.due(9)) == (None, [])
    ring.saw(_peers(a=1, b=None), 10)
    ring.saw(_peers(a=1, b=None), 10.5)
    assert ring.wait(10) == GRACE_SECONDS
    assert (ring.due(10.9), ring.due(11)) == ([], ["b"])
    waits = []
    for _ in range(8):
        ring.later("b", 11)
        waits.append(ring.wait(11))
    assert waits[:3] == [AGAIN_SECONDS, 2 * AGAIN_SECONDS, 4 * AGAIN_SECONDS]
    assert waits[-1] == WATCH_SECONDS
    ring.saw(_peers(a=1, b=2), 30)
    assert ring.due(99) == []
    ring.saw(_peers(a=1, b=None), 31)
    assert ring.wait(31) == GRACE_SECONDS


def test_only_who_was_seen_with_its_lock_has_lost_it_before_our_eyes() -> None:
    ring = Ring("a")
    ring.saw(_peers(a=1, b=None, c=3), 0)
    ring.saw(_peers(a=1, b=None, c=None), 1)
    assert (ring.was_held("b"), ring.was_held("c")) == (False, True)


def _watched(lab: Lab) -> int:
    with lab.db.connect() as connection:
        return int(
            connection.execute(text("SELECT count(*) FROM executors WHERE lifeline")).scalar_one()
        )


def _waiting(lab: Lab) -> int:
    """How many executors wait for the lock of another one."""
    query = text(
        "SELECT count(DISTINCT (classid, objid)) FROM pg_locks WHERE locktype = 'advisory'"
        " AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with lab.db.connect() as connection:
        return int(connection.execute(query).scalar_one())


@pytest.mark.parametrize("listen", [True, False], ids=["listening", "polling"])
def test_whoever_comes_and_goes_is_noticed_and_is_no_death(
    lab: Lab,
    wait_for: Wait,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    listen: bool,
) -> None:
    monkeypatch.setattr(lifeline, "WATCH_SECONDS", 3600.0)  # so it is the nudge that tells
    first = lab.start(listen=listen)
    wait_for(lambda: _watched(lab) == 1)
    others = [lab.start(listen=listen) for _ in range(2)]
    wait_for(lambda: _waiting(lab) == 3)
    lab.stop(others[0])
    wait_for(lambda: _waiting(lab) == 2)
    lab.stop(first)
    wait_for(lambda: _watched(lab) == 1 and _waiting(lab) == 0)
    assert "died" not in caplog.text


def test_where_its_lock_is_not_to_be_seen_it_is_left_to_the_lease(
    lab: Lab, wait_for: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    """For one, where the connections have other names than those that the judges look for."""
    caplog.set_level(logging.INFO)
    lab.start(database_url=f"{lab.url}{'&' if '?' in lab.url else '?'}application_name=mine")

    wait_for(lambda: "found by their leases only" in caplog.text)

    wait_for(lambda: _watched(lab) == 0)
    run = lab.queue(node("transform", output={}))
    lab.until(run, "completed")
    assert caplog.text.count("found by their leases only") == 1


def test_a_lock_that_is_taken_after_the_first_look_is_looked_for(
    lab: Lab, wait_for: Wait, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    look, hold, looked = liveness.look, liveness.hold, threading.Event()

    def looks(*args: Any) -> list[Peer]:
        peers = look(*args)
        looked.set()
        return peers

    def holds(*args: Any) -> bool | None:
        assert looked.wait(PATIENCE)
        return hold(*args)

    monkeypatch.setattr(liveness, "look", looks)
    monkeypatch.setattr(liveness, "hold", holds)
    db = Database(f"{lab.url}{'&' if '?' in lab.url else '?'}application_name=mine")
    one = Lifeline(db, executor="a", threads=1, listening=lambda: True, on_death=lambda: None)
    one.start()
    wait_for(lambda: "found by their leases only" in caplog.text)
    one.end(PATIENCE)
    one.close(PATIENCE)
    db.close()


class _Late(threading.Event):
    """As soon as somebody has seen that it is not set, it is."""

    def is_set(self) -> bool:
        seen = super().is_set()
        self.set()
        return seen


def test_who_comes_just_as_the_watch_begins_is_not_overheard(lab: Lab) -> None:
    one = Lifeline(lab.db, executor="a", threads=1, listening=lambda: True, on_death=lambda: None)
    one._news = _Late()
    with closing(lab.db.raw()) as connection:
        one._look(connection, Ring("a"))
    assert one._news.is_set()
    one.close(0)
