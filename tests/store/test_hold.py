"""A pause of a run that is paused since one above it was: it is held on its own from then on."""

from __future__ import annotations

from app.domain.lifecycle import PAUSE, PAUSED, RUNNING
from tests.store.world import World


def test_a_pause_that_holds_a_paused_run_is_audited_at_its_own_time(world: World) -> None:
    above = world.put(RUNNING)
    below = world.put(RUNNING, parent=above)
    assert world.done(PAUSE, above).moved
    ((answered,),) = [tuple(row.values()) for row in world.query("SELECT clock_timestamp() AS at")]

    assert not world.done(PAUSE, below).moved

    assert world.run(below)["status"] == PAUSED
    first, second = world.query(
        "SELECT payload, created_at FROM audit_events WHERE run_id = %s ORDER BY id", below
    )
    assert first["created_at"] < answered < second["created_at"]
    assert "held" in second["payload"]
