"""The fixture: stands in for a node outside of the part of a workflow that is tested.

It does nothing, and ends as the fixture of the test says. Only derived definitions have such nodes
(see app/domain/slices.py): nobody can save one, so nothing here is checked. Config: ``output`` (an
object, in which bindings are mere texts) or ``ofInput``, where it is the run's input; ``branch``;
``error``. One with ``skipped`` never runs.
"""

from __future__ import annotations

from app.domain.graph import FIXTURE
from app.domain.outcomes import Done, Failed, Outcome
from app.nodes.base import Context, NodeKind


class Fixture(NodeKind):
    """Ends as its config says."""

    kind = FIXTURE
    pure = True

    def run(self, context: Context) -> Outcome:
        """The recorded output, or the recorded error."""
        config, error = context.config, context.config.get("error")
        output = context.scope["trigger"]["input"] if config.get("ofInput") else config["output"]
        if error is not None:
            return Failed(error, retryable=False, output=output)
        return Done(output, branch=config.get("branch"))
