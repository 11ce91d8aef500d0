"""The published SDK, pointed at a live API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from computer_agents import ComputerAgentsClient

from app.domain.lifecycle import TERMINAL
from tests.processes import Live, wait_for


@pytest.fixture
def sdk(live: Live) -> Iterator[Any]:
    """The SDK's metronomes resource."""
    client = ComputerAgentsClient(api_key=live.api_key, base_url=live.base_url)
    yield client.metronomes
    client.close()


@pytest.fixture
def ended(sdk: Any, live: Live) -> Callable[..., Any]:
    """``ended(metronome, run)``: the run once it has ended; the first call starts an executor."""

    def wait(metronome_id: str, run_id: str) -> Any:
        if not live.executors:
            live.start_executor()
        wait_for(
            lambda: sdk.get_run(metronome_id, run_id)["status"] in TERMINAL,
            message=lambda: f"{sdk.get_run(metronome_id, run_id)}\n{live.executors[0].logs()}",
        )
        return sdk.get_run(metronome_id, run_id)

    return wait
