"""The filters of the expression language: ``value|name(arguments)``.

A filter is a plain function of JSON values. None of them takes the name of an attribute, and each
pays for what it makes or walks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from app.domain.errors import ExpressionError, ValueRefused
from app.domain.jsonvalue import check_json
from app.domain.values import (
    MAX_WORK,
    Budget,
    Missing,
    checked_number,
    describe,
    is_number,
    made_length,
    text,
    truth,
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter's function ``(value, arguments, budget)`` and how many arguments it takes."""

    run: Callable[[Any, list[Any], Budget], Any]
    least: int = 0
    most: int = 0
    takes_missing: bool = False


def _need(name: str, value: Any, wanted: str, *kinds: type) -> None:
    if type(value) not in kinds:
        raise ExpressionError(f"'{name}' needs {wanted}, not {describe(value)}")


def _text_of(name: str, value: Any, budget: Budget) -> str:
    _need(name, value, "a text", str)
    budget.spend(len(value))
    return str(value)


def _list_of(name: str, value: Any, budget: Budget) -> list[Any]:
    _need(name, value, "a list", list)
    budget.spend_on(value)
    return list(value)


def _alike(name: str, items: list[Any]) -> list[Any]:
    if all(map(is_number, items)) or all(type(item) is str for item in items):
        return items
    raise ExpressionError(f"'{name}' needs a list of numbers only, or of texts only")


def _default(value: Any, args: list[Any], _: Budget) -> Any:
    if type(value) is Missing or value is None:
        return args[0]
    return args[0] if len(args) > 1 and truth(args[1]) and not truth(value) else value


def _length(value: Any, _args: list[Any], _: Budget) -> int:
    _need("length", value, "a text, a list or an object", str, list, dict)
    return len(value)


def _join(value: Any, args: list[Any], budget: Budget) -> str:
    parts = [text(item) for item in _list_of("join", value, budget)]
    glue = text(args[0]) if args else ""
    made_length(sum(map(len, parts)) + len(glue) * max(0, len(parts) - 1), budget)
    return glue.join(parts)


def _split(value: Any, args: list[Any], budget: Budget) -> list[str]:
    whole = _text_of("split", value, budget)
    if args and (type(args[0]) is not str or not args[0]):
        raise ExpressionError("'split' needs a text that is not empty to split at")
    parts = whole.split(args[0]) if args else whole.split()
    budget.spend(4 * len(parts))
    return parts


def _replace(value: Any, args: list[Any], budget: Budget) -> str:
    whole = _text_of("replace", value, budget)
    old, new = args
    _need("replace", old, "a text to look for", str)
    _need("replace", new, "a text to put in", str)
    if not old:
        raise ExpressionError("'replace' needs a text that is not empty to look for")
    made_length(len(whole) + whole.count(old) * max(0, len(new) - len(old)), budget)
    return whole.replace(old, new)


def _first(value: Any, _args: list[Any], _: Budget) -> Any:
    _need("first", value, "a list or a text", list, str)
    return value[0] if value else None


def _last(value: Any, _args: list[Any], _: Budget) -> Any:
    _need("last", value, "a list or a text", list, str)
    return value[-1] if value else None


def _number(name: str, value: Any) -> Any:
    _need(name, value, "a number", int, float)
    return value


def _round(value: Any, args: list[Any], _: Budget) -> Any:
    number = _number("round", value)
    digits = args[0] if args else 0
    if type(digits) is not int or not -15 <= digits <= 15:
        raise ExpressionError("'round' needs a whole number of digits from -15 to 15")
    return checked_number(round(number, digits) if digits > 0 else int(round(number, digits)))


def _converted(name: str, kind: type, value: Any, args: list[Any]) -> Any:
    try:
        _need(name, value, "a number or a text", int, float, str, bool)
        if type(value) is str and len(value) > 400:
            raise ValueError
        return checked_number(kind(value))
    except (ValueError, OverflowError, ExpressionError):
        if args:
            return args[0]
        raise ExpressionError(f"'{name}' can't make a number of {_shown(value)}") from None


def _int(value: Any, args: list[Any], _: Budget) -> Any:
    return _converted("int", int, value, args)


def _float(value: Any, args: list[Any], _: Budget) -> Any:
    return _converted("float", float, value, args)


def _shown(value: Any) -> str:
    return repr(value[:40]) if type(value) is str else describe(value)


def _string(value: Any, _args: list[Any], budget: Budget) -> str:
    budget.spend_on(value)
    return text(value)


def _tojson(value: Any, _args: list[Any], budget: Budget) -> str:
    try:
        made = orjson.dumps(value).decode()
    except TypeError:
        raise ExpressionError("a value can't be written as JSON") from None
    budget.spend(len(made))
    return made


def _fromjson(value: Any, _args: list[Any], budget: Budget) -> Any:
    whole = _text_of("fromjson", value, budget)
    budget.spend(7 * len(whole))  # parsed JSON takes more room than its text
    try:
        parsed = orjson.loads(whole)
    except ValueError:
        raise ExpressionError(f"'fromjson' can't read {whole[:40]!r}") from None
    try:
        check_json(parsed, "the value of 'fromjson'", max_bytes=2 * MAX_WORK)
    except ValueRefused as error:
        raise ExpressionError(error.message) from None
    return parsed


def _sort(value: Any, args: list[Any], budget: Budget) -> list[Any]:
    items = _alike("sort", _list_of("sort", value, budget))
    return sorted(items, reverse=bool(args and truth(args[0])))


def _unique(value: Any, _args: list[Any], budget: Budget) -> list[Any]:
    seen: dict[bytes, Any] = {}
    for item in _list_of("unique", value, budget):
        seen.setdefault(orjson.dumps(item, option=orjson.OPT_SORT_KEYS), item)
    return list(seen.values())


def _sum(value: Any, _args: list[Any], budget: Budget) -> Any:
    items = _list_of("sum", value, budget)
    if not all(map(is_number, items)):
        raise ExpressionError("'sum' needs a list of numbers only")
    try:
        return checked_number(sum(items))
    except OverflowError:
        raise ExpressionError("the result is too large a number") from None


def _least(value: Any, _args: list[Any], budget: Budget) -> Any:
    items = _alike("min", _list_of("min", value, budget))
    return min(items) if items else None


def _most(value: Any, _args: list[Any], budget: Budget) -> Any:
    items = _alike("max", _list_of("max", value, budget))
    return max(items) if items else None


def _keys(value: Any, _args: list[Any], budget: Budget) -> list[str]:
    _need("keys", value, "an object", dict)
    budget.spend_on(value)
    return list(value)


def _values(value: Any, _args: list[Any], budget: Budget) -> list[Any]:
    _need("values", value, "an object", dict)
    budget.spend_on(value)
    return list(value.values())


def _reverse(value: Any, _args: list[Any], budget: Budget) -> Any:
    _need("reverse", value, "a list or a text", list, str)
    budget.spend_on(value)
    return value[::-1]


def _of_text(name: str, work: Callable[[str], str]) -> Filter:
    def run(value: Any, _args: list[Any], budget: Budget) -> str:
        made = work(_text_of(name, value, budget))
        budget.spend(len(made))
        return made

    return Filter(run)


FILTERS: dict[str, Filter] = {
    "default": Filter(_default, 1, 2, takes_missing=True),
    "length": Filter(_length),
    "count": Filter(_length),
    "lower": _of_text("lower", str.lower),
    "upper": _of_text("upper", str.upper),
    "capitalize": _of_text("capitalize", str.capitalize),
    "title": _of_text("title", str.title),
    "trim": _of_text("trim", str.strip),
    "urlencode": Filter(lambda value, _, budget: quote(_string(value, [], budget), safe="")),
    "join": Filter(_join, 0, 1),
    "split": Filter(_split, 0, 1),
    "replace": Filter(_replace, 2, 2),
    "first": Filter(_first),
    "last": Filter(_last),
    "reverse": Filter(_reverse),
    "round": Filter(_round, 0, 1),
    "abs": Filter(lambda value, _, __: checked_number(abs(_number("abs", value)))),
    "int": Filter(_int, 0, 1),
    "float": Filter(_float, 0, 1),
    "string": Filter(_string),
    "tojson": Filter(_tojson),
    "fromjson": Filter(_fromjson),
    "sort": Filter(_sort, 0, 1),
    "unique": Filter(_unique),
    "sum": Filter(_sum),
    "min": Filter(_least),
    "max": Filter(_most),
    "keys": Filter(_keys),
    "values": Filter(_values),
}
