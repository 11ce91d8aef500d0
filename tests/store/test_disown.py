"""An executor that comes back after its run was taken over can't end what is being replayed."""

from __future__ import annotations

from app.domain.lifecycle import COMPLETED, FAILED, RUNNING
from app.store import leases
from app.store.boundary import Boundary, StepEnd, StepStart
from app.store.leases import EXECUTOR_LOST, Claimed
from tests.store.world import METRONOME, World, step


def _taken_over(world: World) -> tuple[Claimed, Claimed]:
    """A run whose first node was in flight when its lease ended: the old claim and the new one."""
    lost = world.in_flight()
    world.expire(lost.id)
    owner = world.claim("executor-2")
    assert owner.lost
    return lost, owner


def _replay(world: World, owner: Claimed) -> None:
    """What the new holder writes, who has found the first step open."""
    replay = Boundary(
        owner.id,
        METRONOME,
        owner.token,
        ends=[StepEnd(1, FAILED, error=EXECUTOR_LOST)],
        starts=[StepStart(2, "n1", "note", 2)],
    )
    assert world.write(replay).answer == "go"


def test_the_end_of_a_disowned_step_is_refused(world: World) -> None:
    lost, owner = _taken_over(world)
    leases.disown(world.raw(), owner.id, owner.token)

    assert world.write(step(lost, end=1)).answer == "lease_lost"
    _replay(world, owner)

    first, second = world.steps(owner.id)
    assert (first["status"], first["error"]) == (FAILED, EXECUTOR_LOST)
    assert second["status"] == RUNNING


def test_a_step_that_ended_before_stays_as_it_is(world: World) -> None:
    lost, owner = _taken_over(world)
    assert world.write(step(lost, end=1)).answer == "lease_lost"  # of the run; the step was its own
    before = world.steps(owner.id)

    leases.disown(world.raw(), owner.id, owner.token)

    assert world.steps(owner.id) == before
    assert before[0]["status"] == COMPLETED


def test_only_the_holder_disowns_and_only_what_is_in_flight(world: World) -> None:
    lost, owner = _taken_over(world)
    world.put_step(owner.id, 2, RUNNING)  # parked: nobody's
    leases.disown(world.raw(), lost.id, lost.token)
    assert [one["lease_token"] for one in world.steps(owner.id)] == [lost.token, None]
    leases.disown(world.raw(), owner.id, owner.token)
    assert [one["lease_token"] for one in world.steps(owner.id)] == [owner.token, None]
