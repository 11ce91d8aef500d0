"""The thread that renews the leases outlives whatever happens in it."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from app.domain.models import Run
from app.engine import monitor
from app.engine.holds import Holds
from tests.engine.conftest import Lab, node
from tests.processes import PATIENCE, wait_for


def _due(lab: Lab, run: Run) -> float:
    """The end of the lease on the run."""
    with lab.db.connect() as connection:
        asked = text("SELECT extract(epoch FROM due_at)::float8 FROM runs WHERE id = :id")
        return float(connection.execute(asked, {"id": run.id}).scalar_one())


@pytest.mark.parametrize(("owner", "name"), [(monitor, "sweep"), (Holds, "expire")])
def test_leases_are_renewed_though_a_chore_stumbles(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    stumbled, real = threading.Event(), getattr(owner, name)

    def stumbles(*arguments: object) -> object:
        if lab.gate.begun.is_set() and not stumbled.is_set():
            stumbled.set()
            raise RuntimeError("out of the blue")
        return real(*arguments)

    monkeypatch.setattr(owner, name, stumbles)
    lab.start(lease=2.0)
    run = lab.queue(node("gate"))
    assert stumbled.wait(PATIENCE)
    before = _due(lab, run)
    wait_for(lambda: _due(lab, run) > before, message="the lease is renewed")
