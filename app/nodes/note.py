"""The note: a text for people who read the workflow. On a path it does nothing."""

from __future__ import annotations

from app.domain.outcomes import Done, Outcome
from app.nodes.base import Context, NodeKind
from app.nodes.fields import Field


class Note(NodeKind):
    """Passes through where it is on a path; the interpreter never runs one without edges."""

    kind = "note"
    pure = True
    title = "Note"
    told = "A text for people who read the workflow. It does nothing."
    fields = (Field("message", {"description": "The text."}),)
    outputs = ()
    handles = {}  # noqa: RUF012 - never changed

    def run(self, context: Context) -> Outcome:
        """Nothing."""
        return Done()
