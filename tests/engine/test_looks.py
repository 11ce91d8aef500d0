"""When an idle executor looks again for what is due."""

from __future__ import annotations

from app.engine.executor import Executor, Options
from app.nodes.base import NodeLimits


def _idle(url: str) -> Executor:
    """One that is not running, and knows of nothing that is due before its next poll."""
    options = Options(
        database_url=url,
        threads=1,
        lease=30.0,
        poll=60.0,
        grace=1.0,
        listen=False,
        limits=NodeLimits(),
    )
    executor = Executor(options)
    executor._only_polls = True
    return executor


def test_what_the_monitor_saw_coming_is_looked_for_in_time(database_url: str) -> None:
    executor = _idle(database_url)
    executor._due_in(20.0)
    assert 10.0 < executor._claim(news=False) <= 20.0
    assert 10.0 < executor._claim(news=False) <= 20.0, "it is not forgotten"


def test_a_look_of_the_monitor_saves_one_of_its_own(database_url: str) -> None:
    executor = _idle(database_url)
    executor._due_in(None)
    assert executor._claim(news=False) > 50.0
