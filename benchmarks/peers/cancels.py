"""What becomes of a workflow that is cancelled in the middle of its steps."""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.peers.peer import Answer, Mark, Peer, World

AT_ONCE = 4  # workflows: so few that no peer is at the limit of what it can do
SETTLED = 0.4  # seconds behind a cancel, after which nothing more is expected of the workflow


@dataclass(frozen=True, slots=True)
class Cancel:
    """One cancel; times in milliseconds."""

    call: float  # the library's call
    stop: float  # from its answer to the last sign of life of the workflow's steps
    late: int  # steps that started after the answer, which did not name them as in flight
    named: int  # steps whose first line came after the answer, which did name them
    beyond: float  # from the end of the step in flight at the answer to the last sign of life
    cut: bool  # whether a step was interrupted
    lost: int | None  # steps that ended, but are not recorded; None where no steps are recorded


def cancels(peer: Peer, count: int) -> list[dict[str, Any]]:
    """Cancel so many workflows of steps of 20 ms, at any moment."""
    done: list[Cancel] = []
    with peer.world() as world:
        world.start("default")
        world.warm_up()
        while len(done) < count:
            done += _batch(world, len(done))
    return [asdict(one) for one in done]


def _batch(world: World, first: int) -> list[Cancel]:
    tags = [f"n{number}" for number in range(first, first + AT_ONCE)]
    ids = world.enqueue("long", tags).value
    answers: dict[str, Answer] = {}
    for tag, workflow in zip(tags, ids, strict=True):
        world.wait_for_mark("start", tag, 2)
        time.sleep(random.uniform(0.0, 0.04))
        answers[tag] = world.call("cancel", workflow)
    time.sleep(SETTLED)
    marks = world.marks()
    return [
        judged(
            [mark for mark in marks if mark.tag == tag],
            answers[tag],
            world.call("recorded", workflow).value,
        )
        for tag, workflow in zip(tags, ids, strict=True)
    ]


def judged(marks: list[Mark], answer: Answer, recorded: list[int] | None) -> Cancel:
    """One cancel, from the lines of its workflow's steps and what is recorded of them."""
    starts = {mark.number: mark.at for mark in marks if mark.event == "start"}
    behind = {number for number, at in starts.items() if at > answer.ended}
    named = behind & set(answer.value or ())
    late = behind - named
    last = max(mark.at for mark in marks)
    in_time = max(mark.at for mark in marks if mark.number not in late)
    ended = {mark.number for mark in marks if mark.event == "end"}
    return Cancel(
        call=1000 * (answer.ended - answer.began),
        stop=1000 * max(0.0, last - answer.ended),
        late=len(late),
        named=len(named),
        beyond=1000 * max(0.0, last - max(in_time, answer.ended)),
        cut=any(mark.event == "cut" for mark in marks),
        lost=None if recorded is None else len(ended - set(recorded)),
    )
