"""The table: reads CSV or TSV into records.

Config: ``operation`` (parse_csv), and where the text comes from: ``content`` (a text with
bindings), or else ``inputBinding``, an expression (``trigger.input.files``). That gives a text, an
object with a text as ``content``, ``text`` or ``data``, or a list of those. Then ``delimiter`` (one
character, or ``tab``; found out where it is absent), ``hasHeader`` (true) and ``batchSize``.

Output: ``records`` (objects by column), ``columns``, ``rowCount``, and with a ``batchSize`` also
``batches``, the records in lists of that size. All values are texts; a field that a row lacks is
null. The config is not recorded as the step's input too: the trace would hold the text once more.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain.errors import ExpressionError
from app.domain.expressions import render
from app.domain.outcomes import Done, Failed, Outcome
from app.domain.values import describe
from app.nodes.base import Context, NodeKind, Problem
from app.nodes.bindings import (
    binding_problems,
    expression_of,
    expression_problems,
    is_absent,
    is_whole,
)
from app.nodes.fields import ABSENT, Field, choice, expression, flag, output, text_field, whole

OPERATION = "parse_csv"
DEFAULT_BINDING = "trigger.input.files"
MAX_TEXT = 5_000_000  # characters of all files together
MAX_FILES = 1_000
MAX_ROWS = 100_000
MAX_COLUMNS = 1_000
MAX_FIELD = 100_000  # characters; the csv module's own limit is a little above
MAX_NAME = 200  # characters of a column's name
MAX_BATCH = 10_000  # records

_DELIMITERS = ",;\t|"
_NAMED = {"tab": "\t", "\\t": "\t"}
_SAMPLE_ROWS = 20  # rows, and characters of them, that decide on the delimiter
_SAMPLE = 65_536


class Table(NodeKind):
    """Parses its text in this thread; bounded by the limits above."""

    kind = "table"
    usual_subtypes = (OPERATION,)
    title = "Table"
    told = "Reads CSV or TSV into records."
    fields = (
        choice("operation", "The only one.", (OPERATION,), default=OPERATION),
        text_field("content", "The text."),
        expression(
            "inputBinding",
            "Instead of content: what gives a text, an object that has one as content, text or"
            " data, or a list of those.",
            default=DEFAULT_BINDING,
        ),
        Field(
            "delimiter",
            {
                "anyOf": [
                    {"enum": [*_NAMED, *ABSENT]},
                    {"type": "string", "pattern": r'^[^"\r\n\x00]$'},
                ],
                "description": "One character, or tab; found out where it is absent.",
            },
        ),
        flag("hasHeader", "The first row has the names of the columns.", default=True),
        whole("batchSize", "The records also come in lists of that size.", 1, MAX_BATCH),
        Field(
            "filePath", {"enum": list(ABSENT), "description": "This server has no files: refused."}
        ),
    )
    outputs = (
        output("records", "Objects by column; all values are texts, or null.", type="array"),
        output("columns", "The names of the columns.", type="array"),
        output("rowCount", "How many records there are.", type="integer"),
        output("batches", "With a batchSize: the records in lists of it.", type="array"),
    )

    def check(self, config: Mapping[str, Any], handles: frozenset[str]) -> Iterable[Problem]:
        """Types, and the one operation that there is."""
        operation, batch = config.get("operation"), config.get("batchSize")
        if not is_absent(operation) and operation != OPERATION:
            yield Problem("config.operation", f"operation must be {OPERATION}.")
        if not is_absent(config.get("filePath")):
            message = "This server has no files: use content or inputBinding."
            yield Problem("config.filePath", message)
        if not isinstance(config.get("content"), (str, type(None))):
            yield Problem("config.content", "content must be a text.")
        yield from binding_problems(config.get("content"), "config.content")
        yield from expression_problems(config.get("inputBinding"), "inputBinding")
        try:
            _delimiter(config)
        except ValueError as error:
            yield Problem("config.delimiter", str(error))
        if not isinstance(config.get("hasHeader"), (bool, type(None))):
            yield Problem("config.hasHeader", "hasHeader must be true or false.")
        if batch is not None and not is_whole(batch, 1, MAX_BATCH):
            message = f"batchSize must be a whole number from 1 to {MAX_BATCH}."
            yield Problem("config.batchSize", message)

    def run(self, context: Context) -> Outcome:
        """The records."""
        config = context.config
        try:
            delimiter, header = _delimiter(config), config.get("hasHeader") is not False
            texts = list(_texts(_given(config, context.scope)))
            sheets = list(_sheets(texts, delimiter, header))
            output = _merged(sheets, config.get("batchSize"), context.limits.output_max_bytes)
        except ExpressionError as error:
            return Failed(error.message, retryable=False)
        except ValueError as error:
            return Failed(str(error), retryable=False)
        return Done(output)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """One file: a row has at most as many fields as there are columns."""

    columns: list[str]
    rows: list[list[str]]


def _delimiter(config: Mapping[str, Any]) -> str | None:
    """The character between fields; None where it is to be found out."""
    value = config.get("delimiter")
    if is_absent(value):
        return None
    sign = _NAMED.get(value, value) if isinstance(value, str) else ""
    if len(sign) != 1 or sign in '"\r\n\x00':
        raise ValueError("delimiter must be one character (no quote, no end of line), or tab.")
    return sign


def _given(config: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
    if not is_absent(config.get("content")):
        return render(config["content"], scope)
    return expression_of(config.get("inputBinding") or DEFAULT_BINDING).evaluate(scope)


def _texts(given: Any) -> Iterator[str]:
    """The text of each file, as far as all of them together are not too much."""
    files = given if isinstance(given, list) else [given]
    if len(files) > MAX_FILES:
        raise ValueError(f"There are {len(files):,} files; {MAX_FILES:,} is the most.")
    left = MAX_TEXT
    for number, file in enumerate(files):
        where = f"Item {number} of the input" if isinstance(given, list) else "The input"
        text = file
        if isinstance(file, dict):
            names = (name for name in ("content", "text", "data") if file.get(name) is not None)
            text = file.get(next(names, "content"))
        if not isinstance(text, str):
            what = "has no content that is a text" if isinstance(file, dict) else "is no text"
            raise ValueError(f"{where} {what}: it is {describe(file)}.")
        if "\x00" in text:
            raise ValueError(f"{where} holds a NUL character, so it is no CSV.")
        left -= len(text)
        if left < 0:
            raise ValueError(f"The input is longer than {MAX_TEXT:,} characters.")
        yield text.removeprefix("\ufeff")


def _sheets(texts: Iterable[str], delimiter: str | None, header: bool) -> Iterator[_Sheet]:
    left = MAX_ROWS
    for text in texts:
        rows = list(_rows(text, delimiter or _found_out(text), left + header))
        names = rows.pop(0) if header and rows else []
        left -= len(rows)
        width = max((len(row) for row in rows), default=0)
        yield _Sheet(_columns(names, width), rows)


def _rows(text: str, delimiter: str, most: int) -> Iterator[list[str]]:
    """The rows that are not blank, without the empty fields that end a row beyond the first."""
    width: int | None = None
    count = 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if not row:
                continue
            count += 1
            if count > most:
                raise ValueError(f"There are more than {MAX_ROWS:,} rows.")
            width = len(row) if width is None else width
            while len(row) > width and not row[-1]:
                row.pop()
            if len(row) > MAX_COLUMNS:
                raise ValueError(
                    f"Line {reader.line_num} has {len(row):,} fields; {MAX_COLUMNS:,} is the most."
                )
            if max(map(len, row)) > MAX_FIELD:
                raise csv.Error("field larger than field limit")
            yield row
    except csv.Error as error:
        what = f"a field of more than {MAX_FIELD:,} characters" if "limit" in str(error) else error
        raise ValueError(f"Line {reader.line_num} can't be read as CSV: {what}.") from None


def _found_out(text: str) -> str:
    """The delimiter that cuts most of the first rows in the same, greatest number of fields."""
    best, best_score = _DELIMITERS[0], (0, 0)
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text[:_SAMPLE], newline=""), delimiter=delimiter)
        widths: list[int] = []
        try:
            while len(widths) < _SAMPLE_ROWS and (row := next(reader, None)) is not None:
                widths += [len(row)] if row else []
        except csv.Error:  # told when all of it is read
            continue
        width = widths[0] if widths else 0
        score = (widths.count(width), width) if width > 1 else (0, 0)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _columns(names: list[str], width: int) -> list[str]:
    """The names of at least ``width`` columns: those of the header, each made one of its own."""
    columns: dict[str, None] = {}
    taken = {name.strip() for name in names}
    for place in range(max(len(names), width)):
        name = names[place].strip() if place < len(names) else ""
        if len(name) > MAX_NAME:
            raise ValueError(
                f"The name of column {place + 1} is longer than {MAX_NAME} characters."
            )
        unique, number = name or f"column_{place + 1}", 2
        while unique in columns or (unique != name and unique in taken):
            unique, number = f"{name or f'column_{place + 1}'}_{number}", number + 1
        columns[unique] = None
    return list(columns)


def _merged(sheets: list[_Sheet], batch: int | None, most: int) -> dict[str, Any]:
    """The output; the columns of all files in the order in which they first come."""
    columns = list(dict.fromkeys(name for sheet in sheets for name in sheet.columns))
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"There are {len(columns):,} columns; {MAX_COLUMNS:,} is the most.")
    # What an output would have as JSON at the least: it is refused before it fills the memory.
    least = sum(len(name) for name in columns) + 6 * len(columns)
    copies, size = 1 if batch is None else 2, 0
    records: list[dict[str, str | None]] = []
    for sheet in sheets:
        for row in sheet.rows:
            size += copies * (least + sum(map(len, row)))
            if size > most:
                raise ValueError(f"The records are bigger than {most:,} bytes as JSON.")
            record: dict[str, str | None] = dict.fromkeys(columns)
            record.update(zip(sheet.columns, row, strict=False))
            records.append(record)
    output: dict[str, Any] = {"records": records, "columns": columns, "rowCount": len(records)}
    if batch is not None:
        output["batches"] = [records[at : at + batch] for at in range(0, len(records), batch)]
    return output
