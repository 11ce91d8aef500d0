from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from app import logs


@pytest.fixture
def written() -> Iterator[Callable[[], dict[str, Any]]]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    logs.configure("info", stream=stream)

    def only_line() -> dict[str, Any]:
        (line,) = stream.getvalue().splitlines()
        entry: dict[str, Any] = json.loads(line)
        return entry

    yield only_line
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_record_is_one_json_object_a_line(written: Callable[[], dict[str, Any]]) -> None:
    logging.getLogger("app.engine").info("run %s\nclaimed", "r1", extra={"runId": "r1", "n": 3})
    entry = written()
    told = datetime.fromisoformat(entry.pop("ts"))
    assert abs((datetime.now(UTC) - told).total_seconds()) < 60
    assert entry == {
        "level": "info",
        "logger": "app.engine",
        "msg": "run r1\nclaimed",
        "runId": "r1",
        "n": 3,
    }


def test_an_exception_is_a_field(written: Callable[[], dict[str, Any]]) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("x").exception("it failed")
    assert written()["exception"].endswith("ValueError: broken")


def test_records_below_the_level_are_left_out(written: Callable[[], dict[str, Any]]) -> None:
    logging.getLogger("x").debug("no")
    logging.getLogger("x").info("yes")
    assert written()["msg"] == "yes"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer s3cret",
        "{'Authorization': 'Bearer s3cret'}",
        "authorization=Basic s3cret",
        "postgresql://me:s3cret@db/x",
        "got bearer s3cret, refused",
    ],
)
def test_secrets_in_the_text_are_masked(written: Callable[[], dict[str, Any]], text: str) -> None:
    logging.getLogger("x").info(text, extra={"note": text})
    assert "s3cret" not in json.dumps(written())


def test_secrets_in_fields_are_masked(written: Callable[[], dict[str, Any]]) -> None:
    logging.getLogger("x").info("m", extra={"apiKey": "s3cret", "headers": {"Authorization": "x"}})
    assert "s3cret" not in json.dumps(written())


@pytest.mark.parametrize("value", ["\ud800", 2**70, {"a": ["\ud800"]}, object(), {1: b"x"}])
def test_no_value_breaks_logging(written: Callable[[], dict[str, Any]], value: object) -> None:
    logging.getLogger("x").info("m", extra={"value": value})
    assert "value" in written()


def test_lines_for_people_have_the_fields_too() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "slow", None, None)
    record.runId = "r1"
    assert logs.PlainFormatter().format(record).endswith("warning slow runId=r1")
