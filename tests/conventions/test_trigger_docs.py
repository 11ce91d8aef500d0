"""The page on triggers: its examples work, and its table of filters is that of the code."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from app.db import Database
from app.domain.matching import FILTERS, RAW
from app.domain.models import Actor
from app.services import deliveries, metronomes, publishing, triggers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "triggers.rst").read_text()
HOW = {
    "contains": "is a part of",
    "equals": "is",
    "is": "is exactly",
    "command": "is what begins",
    "local_part": "is the mailbox of",
    "address": "is the address of",
}
ACTOR = Actor("key_1", "ada", "acme")


def examples() -> list[Any]:
    """The JSON of the page."""
    blocks = re.findall(r"code-block:: json\n\n((?:    .*\n|\n)+)", PAGE)
    return [json.loads(textwrap.dedent(block)) for block in blocks]


def published(db: Database, definition: dict[str, Any]) -> str:
    """A workflow that has this published."""
    made = metronomes.create(db, ACTOR, name="test", definition=definition)
    publishing.publish_draft(db, ACTOR, made.id, {}, expected=None, connectors={})
    return made.id


def test_the_page_has_every_filter() -> None:
    for trigger_type, filters in FILTERS.items():
        for one in filters:
            names = ("the whole text" if path == RAW else f"``{path}``" for path in one.paths)
            fields = ", ".join(names)
            row = f"   * - ``{trigger_type}``\n     - ``{one.field}``\n     - {HOW[one.how]}\n"
            others = ", ".join(f"``{path}``" for path in one.otherwise)
            more = f"; where it has none of these: {others}" if others else ""
            assert f"{row}     - {fields}{more}" in PAGE
            assert one.default is None or f"(without one: ``{one.default}``)" in PAGE


def test_the_examples_start_runs(db: Database) -> None:
    mail, event, function, call = examples()
    metronome_id = published(db, mail)
    given = deliveries.delivery(
        event["triggerType"],
        event["payload"],
        source_event_id=event["sourceEventId"],
        summary=event["summary"],
    )
    (matched,) = deliveries.deliver(db, ACTOR, given, tell=lambda: None)
    assert (matched.status, matched.metronome_id) == ("matched", metronome_id)
    metronome_id = published(db, function)
    given = deliveries.delivery("function", call["payload"], source_event_id=call["sourceEventId"])
    found = triggers.call(
        db, ACTOR, metronome_id, "orders", given, idempotency_key=None, tell=lambda: None
    )
    assert found.new
