"""What people, and remote sides, do to a forest of runs: the other half of the model."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.lifecycle import (
    APPROVE,
    CANCEL,
    CANCELLED,
    PAUSE,
    PAUSED,
    REJECT,
    RESUME,
    RETRY,
    RETRY_IN_DOUBT,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
    Action,
)
from tests.lifecycle.model import LATER, NONE, NOW, Forest, ModelRun, ModelStep


@dataclass(frozen=True)
class Answer:
    """What a request on a tree came to; ``in_flight`` has "run/node" of the whole tree."""

    moved: bool
    status: str
    in_flight: tuple[str, ...]
    above: str | None = None  # the run that keeps this one from being resumed


def in_flight(forest: Forest, run_id: str) -> tuple[str, ...]:
    """What is in flight in a tree."""
    runs = sorted(forest.tree(run_id), key=lambda run: run.id)
    return tuple(
        f"{run.id}/n{step.seq}"
        for run in runs
        for step in sorted(run.open_steps(), key=lambda step: step.seq)
        if step.token is not None
    )


def _audit(run: ModelRun, action: Action) -> None:
    assert action.audit is not None
    run.audits.append(action.audit)


def _free_due(run: ModelRun, due: str) -> None:
    if run.token is None:
        run.due = due


def _cancelled(forest: Forest, run: ModelRun) -> None:
    """The run itself ends; its parked steps do with it, and connectors are told."""
    for step in run.open_steps():
        forest.tell(run, step, "node.cancelled")
        if step.parked:
            step.end(CANCELLED)
    run.status = CANCEL.target
    _free_due(run, NONE)
    run.wake, run.in_doubt, run.paused_by = NONE, False, None
    run.unsure.clear()
    _audit(run, CANCEL)


def cancel(forest: Forest, run_id: str) -> Answer:
    """Cancel a run and all below it."""
    run = forest.runs[run_id]
    flying = in_flight(forest, run_id)
    moved = run.status in CANCEL.sources
    for one in forest.tree(run_id):
        if one.status in CANCEL.sources:
            _cancelled(forest, one)
    if moved:
        forest.hear_of_end(run)
    return Answer(moved, run.status, flying)


def pause(forest: Forest, run_id: str) -> Answer:
    """Pause a run and all below it."""
    run, tree = forest.runs[run_id], forest.tree(run_id)
    moved = run.status in PAUSE.sources
    if run.status == PAUSED and not run.in_doubt:
        _take(run, tree)
    for one in tree:
        if one.status not in PAUSE.sources:
            continue
        one.status, one.paused_by = PAUSE.target, run_id
        _free_due(one, NONE)
        _audit(one, PAUSE)
        _tell_parked(forest, one, "node.paused")
    return Answer(moved, run.status, in_flight(forest, run_id))


def _take(run: ModelRun, tree: list[ModelRun]) -> None:
    """What a pause above has paused is from now on paused by this one."""
    ids = {one.id for one in tree}
    if run.paused_by not in ids:
        _audit(run, PAUSE)
    for one in tree:
        if one.status == PAUSED and one.paused_by not in ids:
            one.paused_by = run.id


def _holder(forest: Forest, run: ModelRun) -> ModelRun | None:
    """The run above that has to be resumed instead."""
    for above in forest.above(run):
        if above.status == PAUSED and (not above.in_doubt or above.id == run.paused_by):
            return above
    return None


def _resumed(forest: Forest, run: ModelRun, asked: ModelRun) -> list[ModelRun]:
    """The paused runs that go on with ``asked``, ``run`` and below."""
    found = [run] if run is asked or run.paused_by == asked.id or run.in_doubt else []
    for child in forest.runs.values():
        stays = child.status == PAUSED and not child.in_doubt and child.paused_by != asked.id
        if child.parent == run.id and not stays:
            found += _resumed(forest, child, asked)
    return [one for one in found if one.status in RESUME.sources]


def resume(forest: Forest, run_id: str, *, confirm: bool) -> Answer:
    """Let a paused run go on, and what its pause has paused."""
    run = forest.runs[run_id]
    holder = _holder(forest, run)
    above = None if holder is None else holder.id
    willing = run.status in RESUME.sources and (confirm or not run.in_doubt) and not holder
    for one in _resumed(forest, run, run) if willing else []:
        if one.in_doubt and not confirm:
            continue
        _resume(forest, one)
    return Answer(willing, run.status, in_flight(forest, run_id), above)


def _resume(forest: Forest, run: ModelRun) -> None:
    run.status = RESUME.target
    run.wake = LATER if run.wake == LATER else NONE
    waits = run.attempt_due and run.wake == LATER and run.deadline != NOW
    _free_due(run, LATER if waits else NOW)
    if run.in_doubt:
        run.confirm()
    run.in_doubt, run.paused_by, run.takeovers = False, None, 0
    run.unsure.clear()
    _audit(run, RESUME)
    _tell_parked(forest, run, "node.resumed")


def _tell_parked(forest: Forest, run: ModelRun, event: str) -> None:
    for step in run.open_steps():
        if step.parked:
            forest.tell(run, step, event)


def retry(forest: Forest, run_id: str, *, afresh: bool) -> Answer:
    """Queue a root once more."""
    run = forest.runs[run_id]
    flying = in_flight(forest, run_id)
    doubtful = run.status in RETRY_IN_DOUBT.sources and run.in_doubt
    if run.parent is not None or not (run.status in RETRY.sources or doubtful):
        return Answer(False, run.status, flying)
    keeps = doubtful and not afresh
    if keeps:  # its other branches go on with it
        _tell_parked(forest, run, "node.resumed")
        for one in _resumed(forest, run, run)[1:]:
            if one.paused_by == run.id and not one.in_doubt:
                _resume(forest, one)
    else:
        for one in forest.below(run):
            if one.status in CANCEL.sources:
                _cancelled(forest, one)
        for step in run.open_steps():
            forest.tell(run, step, "node.cancelled")
            if step.parked:
                step.end(CANCELLED)
    run.status = RETRY.target
    _free_due(run, NOW)
    run.started, run.deadline, run.wake = False, NONE, NONE
    run.in_doubt, run.paused_by, run.takeovers = False, None, 0
    run.signalled = run.signalled and keeps
    run.attempt_due, run.max_attempts = True, max(run.max_attempts, run.attempts + 1)
    run.unsure.clear()
    if afresh or keeps:
        run.confirm()
    if afresh:
        run.base_seq = max(run.base_seq, *run.steps, 0)
    _audit(run, RETRY)
    return Answer(True, run.status, flying)


def decide(forest: Forest, run_id: str, *, approved: bool, seq: int | None) -> str:
    """Approve or reject a step that waits; what came of it."""
    run = forest.runs[run_id]
    if run.status in TERMINAL:
        return "not_waiting"
    waiting = [
        step
        for step in run.steps.values()
        if step.status == WAITING_APPROVAL and seq in (None, step.seq)
    ]
    if not waiting:
        return "not_waiting"
    step = min(waiting, key=lambda step: (_refusal(step) != "decided", step.seq))
    outcome = _refusal(step)
    if outcome == "decided":
        step.told = True
        run.wakes()
        action = APPROVE if approved else REJECT
        if run.status in action.sources:
            run.status, run.wake = action.target, NONE
        _audit(run, action)
    return outcome


def _refusal(step: ModelStep) -> str:
    if step.told:
        return "already_decided"
    return "expired" if step.wake == NOW else "decided"


def call_back(forest: Forest, run_id: str, seq: int) -> str:
    """A remote side tells how its work has ended; what came of it."""
    run = forest.runs[run_id]
    step = run.steps[seq]
    if step.told:
        return "duplicate"
    if step.status != RUNNING or run.status in TERMINAL or seq <= run.base_seq:
        return "late"
    step.told = True
    run.wakes()
    return "recorded"
