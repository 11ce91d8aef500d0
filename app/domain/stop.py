"""The in-memory flag that tells a node in flight that its run no longer wants it.

The database decides whether a run was cancelled; this flag only makes the news arrive sooner.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

Reason = Literal["cancelled", "paused", "timeout", "lease_lost", "shutdown"]


class StopSignal:
    """Set once, from any thread; a node waits on it or registers a callback."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._reason: Reason | None = None

    @property
    def reason(self) -> Reason | None:
        """Why the node is to stop; None while it may go on."""
        return self._reason

    def is_set(self) -> bool:
        """Whether the node is to stop."""
        return self._event.is_set()

    def set(self, reason: Reason) -> None:
        """Ask the node to stop. The first reason stays; callbacks run once, in this thread."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks, self._callbacks = self._callbacks, []
            self._event.set()
        for callback in callbacks:
            callback()

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the signal; True where it is set."""
        return self._event.wait(max(0.0, seconds))

    def on_stop(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` when the signal is set (at once where it is); returns an undo.

        The callback runs in the thread that sets the signal, must not block and must not raise.
        """
        with self._lock:
            if self._reason is None:
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
