"""The table of docs/operations.rst is what ``Settings`` reads: names, defaults and ranges."""

from __future__ import annotations

import dataclasses
import re

import pytest

from app.config import Settings, SettingsError
from tests.conventions.test_doc_examples import DOCS

_ROW = re.compile(r"^   \* - ``([A-Z_]+)``\n     - (.+)\n     - (.+)\n     - ", re.MULTILINE)
_RANGE = re.compile(r"([0-9.]+) to ([0-9]+)$")
ROWS = {row[0]: row[1:] for row in _ROW.findall((DOCS / "operations.rst").read_text())}
FIELDS = {field.metadata["variable"]: field for field in dataclasses.fields(Settings)}
RANGES = [(name, *found.groups()) for name, row in ROWS.items() if (found := _RANGE.match(row[1]))]


def test_every_setting_has_a_row() -> None:
    assert list(ROWS) == list(FIELDS)


@pytest.mark.parametrize("variable", [name for name in FIELDS if name != "METRONOME_HOME"])
def test_the_default_is_the_one_of_the_table(variable: str) -> None:
    told = ROWS[variable][0].strip("`")
    read = getattr(Settings(), FIELDS[variable].name)
    if told in ("a private PostgreSQL", "generated", "none", "http://HOST:PORT"):
        assert not read
    else:
        assert read in (told, told == "on") or float(read) == float(told)


def test_the_default_home_is_the_one_of_the_table() -> None:
    assert Settings().home.name == ROWS["METRONOME_HOME"][0].strip("`")


@pytest.mark.parametrize(("variable", "low", "high"), RANGES)
def test_the_range_is_the_one_of_the_table(variable: str, low: str, high: str) -> None:
    for inside in (low, high):
        Settings.from_env({variable: inside})
    for outside in (f"{float(low) - 0.01:g}", str(int(high) + 1)):
        with pytest.raises(SettingsError):
            Settings.from_env({variable: outside})


def test_all_numbers_have_a_range() -> None:
    numbers = [name for name, field in FIELDS.items() if type(field.default) in (int, float)]
    assert [name for name, _, _ in RANGES] == numbers
