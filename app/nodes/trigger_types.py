"""What starts runs: the types of triggers, and what their configs hold.

The filters of events are those of domain/matching.py, the schedule's fields those of
domain/schedule.py. A config may hold more; it is kept, and nobody looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.domain import schedule
from app.domain.matching import FILTERS, Filter
from app.nodes.base import Problem
from app.nodes.fields import ABSENT, Field, text_field

_HOW: Final = {
    "contains": "holds this text",
    "equals": "is this",
    "is": "is exactly this",
    "command": "begins with this command",
    "local_part": "is a mailbox of this name",
    "address": "is this address",
}
_ONE: Final = {"type": ["string", "number", "null"]}
_FILTER: Final = {"anyOf": [_ONE, {"type": "array", "items": _ONE}]}

COMMON: Final = (
    text_field("triggerType", "The same as the node's subtype.", bindings=False),
    text_field("promptExtension", "A text for who reads the run.", bindings=False),
    Field("attachments", {"type": ["array", "null"], "description": "Files that go along."}),
    text_field("attachmentsJson", "The same, as a text that holds JSON.", bindings=False),
)


@dataclass(frozen=True, slots=True)
class TriggerType:
    """What starts runs, in words, and the fields of its config."""

    told: str
    fields: tuple[Field, ...] = ()


def _filters(trigger_type: str) -> tuple[Field, ...]:
    return tuple(_filter(one) for one in FILTERS[trigger_type])


def _filter(one: Filter) -> Field:
    paths = (*one.paths, *one.otherwise)
    where = " or ".join(path or "the whole payload" for path in paths)
    told = f"Only events where {where} {_HOW[one.how]}; of a list, one of these. Absent: all."
    return Field(one.field, {**_FILTER, "description": told})


def _whole(name: str, told: str, least: int, most: int) -> Field:
    bounds = {"type": "integer", "minimum": least, "maximum": most}
    return Field(name, {"anyOf": [{"enum": list(ABSENT)}, bounds], "description": told})


def _format(name: str, kind: str, told: str) -> Field:
    schema = {"anyOf": [{"enum": list(ABSENT)}, {"type": "string", "format": kind}]}
    return Field(name, {**schema, "description": told})


_SCHEDULE: Final = (
    text_field("scheduleType", "one-time, cron (or recurring), or interval.", bindings=False),
    _format("scheduledTime", "moment", "When, once; local time in the zone where it names none."),
    _format("cronExpression", "cron", "Five fields: minute, hour, day, month, day of the week."),
    text_field(
        "schedulePresetId",
        f"Instead of cronExpression: {', '.join(schedule.PRESETS)}.",
        bindings=False,
    ),
    _whole(
        "intervalSeconds",
        "Of interval: every so many seconds since 1970.",
        1,
        schedule.MAX_INTERVAL_SECONDS,
    ),
    _format("scheduleTimezone", "time-zone", "An IANA time zone; UTC where it is absent."),
    _whole(
        "catchUpSeconds",
        f"How late a due time may still get a run; {schedule.CATCH_UP_SECONDS} where absent.",
        0,
        schedule.MAX_CATCH_UP_SECONDS,
    ),
    Field(
        "missed",
        {
            "enum": [schedule.LATEST, schedule.SKIP, *ABSENT],
            "default": schedule.LATEST,
            "description": "Whether the latest of the times that are later gets a run, or none.",
        },
    ),
)
_SLUG: Final = (
    text_field("slug", "The name in the URL: 1 to 100 letters, digits, - and _.", bindings=False),
    text_field("functionSlug", "The same; slug counts where both are given.", bindings=False),
)

TRIGGER_TYPES: Final[Mapping[str, TriggerType]] = {
    "manual": TriggerType("Somebody starts the run."),
    "manual_test": TriggerType("Somebody tests the draft."),
    "function": TriggerType("A request to the trigger's own URL.", _SLUG),
    "periodic": TriggerType("A schedule.", _SCHEDULE),
    "github": TriggerType("A webhook of GitHub's.", _filters("github")),
    "email": TriggerType("An email.", _filters("email")),
    "telegram": TriggerType("A message to a Telegram bot.", _filters("telegram")),
    "thread_event": TriggerType("A message in a thread.", _filters("thread_event")),
    "project_ticket": TriggerType("A change of a ticket.", _filters("project_ticket")),
    "resource": TriggerType("A deployment.", _filters("resource")),
    "database_entry": TriggerType("A new document.", _filters("database_entry")),
    "auth": TriggerType("A new user.", _filters("auth")),
    "metronome": TriggerType("A node of the kind metronome of another workflow."),
}


def trigger_problems(trigger_type: str, config: Mapping[str, Any]) -> Iterator[Problem]:
    """What keeps a trigger of that type from being published."""
    known = TRIGGER_TYPES.get(trigger_type)
    periodic = trigger_type == schedule.TRIGGER_TYPE
    own = () if known is None or periodic else known.fields
    for field in (*COMMON, *own):
        fault = _fault(field, config.get(field.name))
        if fault is not None:
            yield Problem(f"config.{field.name}", f"{field.name} {fault}.")
    if periodic:
        for problem in schedule.problems(config):
            yield Problem(problem.field, problem.message)


def _fault(field: Field, value: Any) -> str | None:
    if value is None:
        return None
    if "anyOf" in field.schema:
        several = value if isinstance(value, list) else [value]
        good = all(isinstance(one, (str, int, float, type(None))) for one in several)
        no_flag = not any(isinstance(one, bool) for one in several)
        return None if good and no_flag else "must be a text, a number, or a list of these"
    if "array" in field.schema["type"]:
        return None if isinstance(value, list) else "must be a list"
    return None if isinstance(value, str) else "must be a text"
