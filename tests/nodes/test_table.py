from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.outcomes import Done, Failed
from app.nodes import table

Run = Callable[..., Any]


def parsed(run: Run, text: str, **config: Any) -> dict[str, Any]:
    outcome = run("table", {"inputBinding": "text", **config}, {"text": text})
    assert isinstance(outcome, Done), outcome
    return outcome.output


def refused(run: Run, given: Any, **config: Any) -> str:
    limits = {"output_max_bytes": config.pop("most", 1_000_000)}
    outcome = run("table", {"inputBinding": "given", **config}, {"given": given}, **limits)
    assert isinstance(outcome, Failed), outcome
    assert not outcome.retryable
    return outcome.error


def test_csv_becomes_records(run: Run) -> None:
    text = 'name,n\nAda,1\n"Lovelace, ""A""",2\n'
    assert parsed(run, text) == {
        "records": [{"name": "Ada", "n": "1"}, {"name": 'Lovelace, "A"', "n": "2"}],
        "columns": ["name", "n"],
        "rowCount": 2,
    }


def test_a_batch_size_makes_batches_of_the_records(run: Run) -> None:
    output = parsed(run, "n\n1\n2\n3", batchSize=2)
    assert output["batches"] == [[{"n": "1"}, {"n": "2"}], [{"n": "3"}]]
    assert output["rowCount"] == 3


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2", None),
        ("a;b\n1;2", None),
        ("a\tb\n1\t2", None),
        ("a|b\n1|2", None),
        ("a;b\n1,5;2,7\n", None),
        ('"a,x";"b,x"\n1;2', ""),
        ("a\tb\n1\t2", "tab"),
        ("a\tb\n1\t2", "\\t"),
        ("a\tb\n1\t2", "\t"),
        ("a€b\n1€2", "€"),
    ],
)
def test_the_delimiter_is_told_or_found_out(run: Run, text: str, delimiter: str | None) -> None:
    assert len(parsed(run, text, delimiter=delimiter)["columns"]) == 2


def test_a_single_column_has_no_delimiter(run: Run) -> None:
    assert parsed(run, "a\n1\n2")["records"] == [{"a": "1"}, {"a": "2"}]


def test_without_a_header_columns_are_numbered(run: Run) -> None:
    output = parsed(run, "1,2\n3", hasHeader=False)
    assert output["columns"] == ["column_1", "column_2"]
    assert output["records"][1] == {"column_1": "3", "column_2": None}


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("\ufeffa, b ,", ["a", "b", "column_3"]),
        ("a,a,a", ["a", "a_2", "a_3"]),
        ("a,a,a_2", ["a", "a_3", "a_2"]),
        (",column_1", ["column_1_2", "column_1"]),
        (" , ", ["column_1", "column_2"]),
    ],
)
def test_every_column_has_a_name_of_its_own(run: Run, header: str, columns: list[str]) -> None:
    assert parsed(run, f"{header}\n1", delimiter=",")["columns"] == columns


def test_rows_of_other_lengths_lose_nothing(run: Run) -> None:
    output = parsed(run, "a,b\n1\n1,2,,\n1,2,3\n\n")
    assert output["columns"] == ["a", "b", "column_3"]
    assert output["records"] == [
        {"a": "1", "b": None, "column_3": None},
        {"a": "1", "b": "2", "column_3": None},
        {"a": "1", "b": "2", "column_3": "3"},
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_end_of_line_is_known(run: Run, end: str) -> None:
    output = parsed(run, end.join(["a,b", '"x', 'y",2', ""]))
    assert output["records"] == [{"a": f"x{end}y", "b": "2"}]


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_text_is_an_empty_table(run: Run, text: str) -> None:
    assert parsed(run, text, batchSize=5) == {
        "records": [],
        "columns": [],
        "rowCount": 0,
        "batches": [],
    }


@pytest.mark.parametrize(
    "given",
    [
        "a\n1",
        {"content": "a\n1", "name": "x.csv"},
        {"text": "a\n1"},
        {"content": None, "data": "a\n1"},
        [{"content": "a\n1"}],
        ["a\n1"],
    ],
)
def test_the_input_may_be_a_text_a_file_or_a_list(run: Run, given: Any) -> None:
    scope = {"trigger": {"input": {"files": given}}}
    for config in ({}, {"inputBinding": "{{ trigger.input.files }}"}):
        assert run("table", config, scope).output["records"] == [{"a": "1"}]


def test_several_files_make_one_table_of_all_their_columns(run: Run) -> None:
    files = [{"content": "a,b\n1,2"}, {"content": ""}, {"content": "b;c\n3;4"}]
    output = run("table", {"inputBinding": "files"}, {"files": files}).output
    assert output["columns"] == ["a", "b", "c"]
    assert output["records"] == [{"a": "1", "b": "2", "c": None}, {"a": None, "b": "3", "c": "4"}]
    assert run("table", {"inputBinding": "files"}, {"files": []}).output["rowCount"] == 0


def test_content_goes_before_the_binding_and_may_hold_bindings(run: Run) -> None:
    config = {"content": "{{ head }}\n1", "inputBinding": "trigger.input.files"}
    assert run("table", config, {"head": "a"}).output["records"] == [{"a": "1"}]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (5, "The input is no text: it is a number."),
        (None, "it is null"),
        ({"name": "x"}, "The input has no content that is a text: it is an object."),
        ({"content": ["a"]}, "has no content that is a text"),
        (["a", 5], "Item 1 of the input is no text"),
        ("a\n\x00", "NUL"),
        (["a"] * 1001, "1,001 files; 1,000 is the most"),
        ("x" * 5_000_001, "longer than 5,000,000 characters"),
        (["x" * 3_000_000] * 2, "longer than 5,000,000 characters"),
        ("a\n" + "x" * 100_001, "Line 2 can't be read as CSV: a field of more than 100,000"),
        ("a\n" + "x" * 200_000, "a field of more than 100,000"),
        ("a\n" * 100_002, "more than 100,000 rows"),
        ("," * 1000, "1,001 fields; 1,000 is the most"),
        ("a\n" + "," * 999 + "x,x", "1,001 fields; 1,000 is the most"),
        ("x" * 201 + ",b\n", "name of column 1 is longer than 200"),
        ('a\n"open', "Line 2 can't be read as CSV: unexpected end of data"),
        ('a\n"x"y', "Line 2 can't be read as CSV"),
    ],
)
def test_what_is_no_table_fails_for_good(run: Run, given: Any, error: str) -> None:
    assert error in refused(run, given)


def test_a_missing_input_is_named(run: Run) -> None:
    outcome = run("table", {}, {"trigger": {"input": {}}})
    assert "'trigger.input.files' is missing" in outcome.error
    assert not outcome.retryable


def test_records_that_are_too_big_are_refused_before_they_fill_the_memory(run: Run) -> None:
    # Each of the short rows would be a record of a thousand columns.
    text = ",".join(f"c{n}" for n in range(1000)) + "\n" + "x\n" * 99_000
    start = time.monotonic()
    assert "bigger than 1,000,000 bytes" in refused(run, text)
    assert time.monotonic() - start < 5
    text = "a\n" + "0123456789\n" * 40
    assert "bigger than 1,000 bytes" in refused(run, text, batchSize=5, most=1_000)
    assert len(parsed(run, text)["records"]) == 40


def test_an_unfriendly_text_takes_no_long_time(run: Run) -> None:
    start = time.monotonic()
    for text in ('"' * 1_000_000, "'," * 400_000, '"\n' * 90_000, '","' * 30_000):
        run("table", {"inputBinding": "text"}, {"text": text})
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"operation": "parse_pdf"}, "config.operation"),
        ({"filePath": "/etc/passwd"}, "config.filePath"),
        ({"content": ["a"]}, "config.content"),
        ({"content": "{{ ( }}"}, "config.content"),
        ({"inputBinding": 5}, "config.inputBinding"),
        ({"inputBinding": "a b"}, "config.inputBinding"),
        ({"delimiter": ",,"}, "config.delimiter"),
        ({"delimiter": '"'}, "config.delimiter"),
        ({"delimiter": "\n"}, "config.delimiter"),
        ({"delimiter": ["\t"]}, "config.delimiter"),
        ({"hasHeader": "yes"}, "config.hasHeader"),
        ({"batchSize": 0}, "config.batchSize"),
        ({"batchSize": 2.5}, "config.batchSize"),
    ],
)
def test_a_bad_config_is_named(faults: Run, config: dict[str, Any], field: str) -> None:
    assert faults("table", config) == [field]


def test_a_table_lacks_nothing(lacks: Run) -> None:
    assert lacks("table", {}) == []
    sdk = {"operation": "parse_csv", "inputBinding": table.DEFAULT_BINDING, "hasHeader": True}
    assert lacks("table", {**sdk, "batchSize": 5, "outputKey": "table"}) == []
