"""The condition: takes the edges of the first condition that holds, else those of ``else``.

Config: ``conditions``, an ordered list of ``{id, expression}`` or ``{id, field, operator, value}``.

An expression is strict: a missing name or a comparison of unlike kinds fails the node. The
operators are lenient, as a form writes them: ``field`` is a path, which counts as null where it
leads nowhere; a number or true/false may be written as text in ``value``.

=================  ============================================================================
operator           holds where the field
=================  ============================================================================
equals             is the value (null equals a missing field)
not_equals         is not
contains           is a text with that part, a list with that item, an object with that key
not_contains       has it not, is missing, or can't contain anything
starts_with        is a text (or number) that starts so
ends_with          is a text (or number) that ends so
gt gte lt lte      and the value are both numbers, or both other texts, in that order
exists             is there and not null
is_empty           is missing, null, or an empty text, list or object
=================  ============================================================================

A comparison of kinds that don't go together does not hold.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from app.domain.errors import ExpressionError
from app.domain.expressions import render
from app.domain.outcomes import Done, Failed, Outcome
from app.domain.values import Budget, equals, is_number, text, truth
from app.nodes.base import Branch, Context, NodeKind, Problem
from app.nodes.bindings import binding_problems, expression_of
from app.nodes.fields import BINDINGS, Field, given, not_both, one_of_them, output

MAX_CONDITIONS = 100
_TAKEN_NAMES = ("else", "error")
OPERATORS = {
    "equals": "is the value; a missing field equals null",
    "not_equals": "is not the value",
    "contains": "is a text with that part, a list with that item, or an object with that key",
    "not_contains": "does not contain it, is missing, or can't contain anything",
    "starts_with": "is a text or number that starts so",
    "ends_with": "is a text or number that ends so",
    "gt": "is greater; both are numbers, or both are other texts",
    "gte": "is greater or equal, in the same way",
    "lt": "is less, in the same way",
    "lte": "is less or equal, in the same way",
    "exists": "is there and not null",
    "is_empty": "is missing, null, or an empty text, list or object",
}
_ENTRY = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "not": {"enum": list(_TAKEN_NAMES)},
            "description": "The sourceHandle of the edges that are taken; each id comes once.",
        },
        "expression": {
            "anyOf": [{"enum": [None, ""]}, {"type": "string", "format": "expression"}],
            "description": "Strict: a missing name fails the node.",
        },
        "field": {
            "anyOf": [{"enum": [None, ""]}, {"type": "string", "format": "expression"}],
            "description": "Instead of expression: a path, which is null where it leads nowhere.",
        },
        "operator": {"description": "How the field is compared."},
        "value": {**BINDINGS, "description": "What the field is compared with."},
    },
    "allOf": [
        one_of_them("expression", "field"),
        not_both(given("expression"), given("field")),
        {
            "if": given("field"),
            "then": {
                "required": ["operator"],
                "properties": {"operator": {"enum": list(OPERATORS)}},
            },
        },
    ],
}


class Condition(NodeKind):
    """Evaluates its conditions in order."""

    kind = "condition"
    pure = True
    usual_subtypes = ("if_else",)
    title = "Condition"
    told = "Takes the edges of the first condition that holds, else those of else."
    fields = (
        Field(
            "conditions",
            {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_CONDITIONS,
                "items": _ENTRY,
                "description": "They are tried in this order.",
            },
            needed=True,
        ),
    )
    outputs = (output("matched", "The id of the condition, or else.", type="string"),)
    handles = {  # noqa: RUF012 - never changed
        "{conditions.id}": "This condition was the first that holds.",
        "else": "None holds.",
        "true": "Where there is just one condition: it holds.",
        "false": "Where there is just one condition: it does not hold.",
        **NodeKind.handles,
    }

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """Every condition must be readable, and every leaving edge must name a branch."""
        conditions = config.get("conditions") or []
        if not isinstance(conditions, list) or len(conditions) > MAX_CONDITIONS:
            message = f"conditions must be a list of at most {MAX_CONDITIONS}."
            yield Problem("config.conditions", message)
            return
        ids: list[str] = []
        for index, entry in enumerate(conditions):
            yield from _entry_problems(entry, f"config.conditions.{index}", ids)
        branches = [*ids, "else", *(("true", "false") if len(conditions) == 1 else ())]
        for handle in sorted(handles.difference(branches, ("error",))):
            what = f"The sourceHandle '{handle[:128]}' names" if handle else "The edge names"
            message = f"{what} no branch; there are {', '.join(branches)}."
            yield Problem(f"handles.{handle}", message)

    def missing(self, config: Mapping[str, Any]) -> Iterable[Problem]:
        """At least one condition, and something to evaluate in each."""
        conditions = config.get("conditions")
        if not conditions:
            yield Problem("config.conditions", "A condition needs at least one entry.")
        for index, entry in enumerate(conditions or ()):
            if not (entry.get("expression") or entry.get("field")):
                message = "A condition needs an expression, or a field and an operator."
                yield Problem(f"config.conditions.{index}", message)

    def branches(self, config: Mapping[str, Any]) -> Iterable[Branch]:
        """Each condition, and what becomes of a run for which none holds."""
        conditions = config.get("conditions") or []
        yes, no = ({"true"}, {"false"}) if len(conditions) == 1 else (set(), set())
        for entry in conditions:
            yield Branch(entry["id"], frozenset({entry["id"], *yes}), expected=True)
        yield Branch("else", frozenset({"else", *no}), expected=False)

    def run(self, context: Context) -> Outcome:
        """Which branch is taken."""
        conditions = context.config["conditions"]
        try:
            matched = next((c["id"] for c in conditions if _holds(c, context.scope)), None)
        except ExpressionError as error:
            return Failed(error.message, retryable=False)
        branch = "else" if matched is None else str(matched)
        output = {"matched": branch}
        if len(conditions) == 1 and branch not in context.handles:
            plain = "false" if matched is None else "true"
            branch = plain if plain in context.handles else branch
        return Done(output, branch=branch)


def _entry_problems(entry: Any, field: str, ids: list[str]) -> Iterator[Problem]:
    if not isinstance(entry, dict):
        yield Problem(field, "A condition must be an object.")
        return
    id = entry.get("id")
    if not isinstance(id, str) or not 1 <= len(id) <= 128:
        yield Problem(f"{field}.id", "A condition needs an id: a text of 1 to 128 characters.")
    elif id in _TAKEN_NAMES:
        yield Problem(f"{field}.id", f"A condition's id can't be '{id}'.")
    elif id in ids:
        yield Problem(f"{field}.id", f"The condition id '{id}' is used twice.")
    else:
        ids.append(id)
    yield from binding_problems(entry.get("value"), f"{field}.value")
    if entry.get("expression") and entry.get("field"):
        yield Problem(field, "A condition takes an expression or a field, not both.")
        return
    for name in ("expression", "field"):
        if not isinstance(entry.get(name), (str, type(None))):
            yield Problem(f"{field}.{name}", f"{name} must be a text.")
        elif entry.get(name):
            try:
                expression_of(entry[name])
            except ExpressionError as error:
                yield Problem(f"{field}.{name}", error.message)
    if entry.get("field"):
        wanted = entry.get("operator")
        if not isinstance(wanted, str) or wanted not in OPERATORS:
            known = ", ".join(OPERATORS)
            yield Problem(f"{field}.operator", f"operator must be one of {known}.")


def _holds(entry: Mapping[str, Any], scope: Mapping[str, Any]) -> bool:
    if entry.get("expression"):
        return truth(expression_of(entry["expression"]).evaluate(scope))
    found = expression_of(entry["field"]).look_up(scope)
    return _HOLDS[entry["operator"]](found, render(entry.get("value"), scope))


def _number(value: Any) -> int | float | None:
    if type(value) is int or type(value) is float:
        return value
    if type(value) is str and len(value) <= 400:
        try:
            number = float(value)
        except ValueError:
            return None
        return number if number - number == 0.0 else None
    return None


def _equals(found: Any, value: Any) -> bool:
    if type(found) is not type(value) and isinstance(value, str):
        if is_number(found):
            return bool(_number(value) == found)
        if type(found) is bool:
            return text(found) == value.lower()
    return equals(found, value, Budget())


def _contains(found: Any, value: Any) -> bool:
    if isinstance(found, str):
        return value is not None and text(value) in found
    if isinstance(found, list):
        return any(_equals(item, value) for item in found)
    return isinstance(found, dict) and isinstance(value, str) and value in found


def _edge(work: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, value: Any) -> bool:
        texts = type(found) is str or is_number(found), type(value) is str or is_number(value)
        return all(texts) and work(text(found), text(value))

    return holds


def _ordered(work: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, value: Any) -> bool:
        a, b = _number(found), _number(value)
        if a is not None and b is not None:
            return work(a, b)
        return type(found) is str and type(value) is str and work(found, value)

    return holds


_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": _equals,
    "not_equals": lambda found, value: not _equals(found, value),
    "contains": _contains,
    "not_contains": lambda found, value: not _contains(found, value),
    "starts_with": _edge(str.startswith),
    "ends_with": _edge(str.endswith),
    "gt": _ordered(operator.gt),
    "gte": _ordered(operator.ge),
    "lt": _ordered(operator.lt),
    "lte": _ordered(operator.le),
    "exists": lambda found, _: found is not None,
    "is_empty": lambda found, _: found is None or found in ("", [], {}),
}
