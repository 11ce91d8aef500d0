"""What the values of the expression language are, and what its operators do with them.

Values are JSON values and nothing else. Each operation that makes or walks something pays for it
from a Budget, so that no expression can take long or fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import orjson

from app.domain.errors import ExpressionError
from app.domain.jsonvalue import MAX_INT, MIN_INT

MAX_TEXT = 1_000_000  # characters of a text, or items of a list, that an operator makes
MAX_WORK = 10_000_000  # characters of JSON that one evaluation may make or walk

_NUMBERS = frozenset({int, float})
_HINTED_KEYS = 8


class Budget:
    """How much one evaluation may still do, in characters of JSON."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_WORK

    def spend(self, amount: int) -> None:
        """Pay for ``amount`` characters; raises ExpressionError where nothing is left."""
        self.left -= amount
        if self.left < 0:
            raise ExpressionError("the expression makes too much data")

    def spend_on(self, value: Any) -> None:
        """Pay for the whole of ``value``."""
        self.spend(weight(value))


class Missing:
    """The value of a path that leads nowhere: only ``is defined`` and ``default`` accept it."""

    __slots__ = ("hint", "path")

    def __init__(self, path: str, hint: str = "") -> None:
        self.path = path
        self.hint = hint

    def error(self) -> ExpressionError:
        """The error for using the value."""
        return ExpressionError(f"'{self.path}' is missing{self.hint}")


def weight(value: Any) -> int:
    """About how many characters ``value`` has as JSON."""
    if type(value) is str:
        return len(value)
    if type(value) is dict or type(value) is list:
        try:
            return len(orjson.dumps(value))
        except TypeError:
            raise ExpressionError("a value can't be written as JSON") from None
    return 8


def present(value: Any) -> Any:
    """``value`` itself; raises ExpressionError where it is missing."""
    if type(value) is Missing:
        raise value.error()
    return value


def truth(value: Any) -> bool:
    """Whether ``value`` counts as true: not false, null, 0, or empty."""
    return value if type(value) is bool else bool(present(value))


def describe(value: Any) -> str:
    """What kind of value it is, for errors."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in _NUMBERS:
        return "a number"
    if type(value) is str:
        return "a text"
    return "a list" if type(value) is list else "an object"


def is_number(value: Any) -> bool:
    """Whether ``value`` is a number; true and false are none."""
    return type(value) in _NUMBERS


def checked_number(value: Any) -> Any:
    """``value`` itself; raises ExpressionError where JSON can't hold that number."""
    if type(value) is int:
        if MIN_INT <= value <= MAX_INT:
            return value
    elif value - value == 0.0:
        return value
    raise ExpressionError("the result is too large a number")


def text(value: Any) -> str:
    """``value`` as text: JSON, but that texts have no quotes and whole floats no ``.0``."""
    if type(value) is str:
        return value
    if type(value) is float and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    try:
        return orjson.dumps(present(value)).decode()
    except TypeError:
        raise ExpressionError("a value can't be written as JSON") from None


def get(value: Any, key: Any, path: str) -> Any:
    """The item ``key`` of an object, a list or a text; Missing, called ``path``, without one."""
    if type(value) is dict or isinstance(value, Mapping):
        if type(key) is int:
            key = str(key)  # steps.1 means the node with the id "1"
        if type(key) is str:
            try:
                return value[key]
            except KeyError:
                return Missing(path, _known(value))
    elif type(value) is list or type(value) is str:
        if type(key) is int:
            try:
                return value[key]
            except IndexError:
                return Missing(path, f" (there are {len(value):,})")
    elif type(value) is Missing:
        return value
    present(key)
    return Missing(path, f" (there is nothing of that name in {describe(value)})")


def _known(value: Mapping[str, Any]) -> str:
    names: list[str] = []
    for name in value:
        if len(names) == _HINTED_KEYS:
            names.append("...")
            break
        names.append(name[:40])
    return f" (there are: {', '.join(names)})" if names else " (it has no entries)"


def cut(value: Any, start: Any, stop: Any, step: Any, budget: Budget) -> Any:
    """The slice ``value[start:stop:step]`` of a list or a text."""
    if type(present(value)) is not list and type(value) is not str:
        raise ExpressionError(f"{describe(value)} has no slices")
    for bound in (start, stop, step):
        if bound is not None and type(present(bound)) is not int:
            raise ExpressionError("the bounds of a slice must be whole numbers")
    if step == 0:
        raise ExpressionError("the step of a slice can't be 0")
    part = value[start:stop:step]
    budget.spend(len(part))
    return part


def add(a: Any, b: Any, budget: Budget) -> Any:
    """``a + b``: two numbers, two texts or two lists."""
    if type(a) in _NUMBERS and type(b) in _NUMBERS:
        return checked_number(a + b)
    if type(a) is type(b) and (type(a) is str or type(a) is list):
        made_length(len(a) + len(b), budget)
        return a + b
    refuse("+", a, b)


def joined(values: Iterable[Any], budget: Budget) -> str:
    """The texts of ``values``, one after the other; paid for piece by piece."""
    parts: list[str] = []
    length = 0
    for value in values:
        part = text(value)
        length += len(part)
        if length > MAX_TEXT:
            raise ExpressionError(f"the result would be longer than {MAX_TEXT:,}")
        budget.spend(len(part))
        parts.append(part)
    return "".join(parts)


def made_length(length: int, budget: Budget) -> None:
    """Pay for a text or list that is about to be made; raises ExpressionError where too long."""
    if length > MAX_TEXT:
        raise ExpressionError(f"the result would be longer than {MAX_TEXT:,}")
    budget.spend(length)


def arithmetic(sign: str, work: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Budget], Any]:
    """The operator ``sign``, which takes numbers only."""

    def operator(a: Any, b: Any, _: Budget) -> Any:
        if type(a) not in _NUMBERS or type(b) not in _NUMBERS:
            refuse(sign, a, b)
        try:
            return checked_number(work(a, b))
        except ZeroDivisionError:
            raise ExpressionError(f"'{sign}' with 0 on its right side") from None
        except OverflowError:
            raise ExpressionError("the result is too large a number") from None

    return operator


def ordering(sign: str, work: Callable[[Any, Any], bool]) -> Callable[[Any, Any, Budget], bool]:
    """The comparison ``sign``, which takes two numbers or two texts."""

    def operator(a: Any, b: Any, _: Budget) -> bool:
        if (type(a) in _NUMBERS and type(b) in _NUMBERS) or (type(a) is str and type(b) is str):
            return work(a, b)
        refuse(sign, a, b)

    return operator


def equals(a: Any, b: Any, budget: Budget) -> bool:
    """``a == b`` as JSON has it: 1 equals 1.0, but true is not 1."""
    kind = type(a)
    if kind is dict or kind is list:
        if type(b) is not kind or len(a) != len(b):
            present(b)
            return False
        budget.spend_on(a)
        return _same(a, b)
    return _same(present(a), present(b))


def _same(a: Any, b: Any) -> bool:
    if type(a) is list and type(b) is list:
        return len(a) == len(b) and all(map(_same, a, b))
    if type(a) is dict and type(b) is dict:
        return a.keys() == b.keys() and all(_same(item, b[key]) for key, item in a.items())
    if type(a) is bool or type(b) is bool:
        return a is b
    return bool(a == b)


def contains(needle: Any, whole: Any, budget: Budget) -> bool:
    """``needle in whole``: part of a text, item of a list, or key of an object."""
    present(needle)
    if type(whole) is str and type(needle) is str:
        budget.spend(len(whole))
        return needle in whole
    if type(whole) is list:
        budget.spend_on(whole)
        return any(_same(needle, item) for item in whole)
    if type(whole) is dict and type(needle) is str:
        return needle in whole
    refuse("in", needle, whole)


def refuse(sign: str, a: Any, b: Any) -> NoReturn:
    """Raise the ExpressionError for operands that ``sign`` does not take."""
    present(a), present(b)
    raise ExpressionError(f"'{sign}' can't be used on {describe(a)} and {describe(b)}")
