from __future__ import annotations

from pathlib import Path

import pytest

from app.config import SettingsError
from app.domain.connectors import Connector, chosen, load
from tests.connectors import SECRET

GOOD = f"""
[connectors.firecrawl]
url = "https://crawler.example/x?y=1"
secret = "{SECRET}"
timeoutSeconds = 2.5
callbackTimeoutSeconds = 600
heartbeatSeconds = 30
replaySafe = true

[connectors."action.start_thread"]
url = "http://[::1]:9000"
secret = "{SECRET}"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the connectors are configured."""
    return tmp_path / "connectors.toml"


def problems(file: Path, content: str | bytes) -> list[str]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert all(str(file) in problem for problem in caught.value.problems)
    assert all("METRONOME_CONNECTORS" in problem for problem in caught.value.problems)
    assert SECRET not in str(caught.value)
    return [problem.partition(f"{file}")[2].lstrip(": ") for problem in caught.value.problems]


def test_the_file_says_who_does_the_work_of_which_kind(file: Path) -> None:
    file.write_text(GOOD)
    assert load(file) == {
        "firecrawl": Connector(
            name="firecrawl",
            url="https://crawler.example/x?y=1",
            secret=SECRET,
            timeout_ms=2_500,
            callback_timeout_ms=600_000,
            heartbeat_ms=30_000,
            replay_safe=True,
        ),
        "action.start_thread": Connector("action.start_thread", "http://[::1]:9000", SECRET),
    }


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "[connectors]\n"])
def test_a_file_may_name_no_connector(file: Path, content: str) -> None:
    file.write_text(content)
    assert load(file) == {}
    assert load(None) == {}


def test_a_subtype_goes_before_its_kind(file: Path) -> None:
    file.write_text(GOOD + f'[connectors.action]\nurl = "http://x"\nsecret = "{SECRET}"\n')
    found = load(file)
    for kind, subtype, name in (
        ("action", "start_thread", "action.start_thread"),
        ("action", "other", "action"),
        ("action", None, "action"),
        ("firecrawl", "web_search", "firecrawl"),
        ("ticket", "update_ticket_status", None),
    ):
        connector = chosen(found, kind, subtype)
        assert (connector and connector.name) == name


@pytest.mark.parametrize(
    ("replaced", "by", "problem"),
    [
        ("url =", "uri =", "[connectors.firecrawl] uri is unknown: did you mean url?"),
        ("timeoutSeconds = 2.5", 'timeoutSeconds = "2"', "timeoutSeconds: expected a number"),
        ("timeoutSeconds = 2.5", "timeoutSeconds = 0", "timeoutSeconds: expected a number"),
        ("timeoutSeconds = 2.5", "timeoutSeconds = nan", "timeoutSeconds: expected a number"),
        ("timeoutSeconds = 2.5", "timeoutSeconds = true", "timeoutSeconds: expected a number"),
        ("callbackTimeoutSeconds = 600", "callbackTimeoutSeconds = 1e12", "callbackTimeout"),
        ("heartbeatSeconds = 30", "heartbeatSeconds = -1", "heartbeatSeconds: expected a number"),
        ("replaySafe = true", 'replaySafe = "yes"', "replaySafe: expected true or false"),
        ("https://", "ftp://", "url: expected an http or https URL"),
        ("https://", "https://me:pw@", "url: expected an http or https URL"),
        ("https://", "https://a b", "url: expected an http or https URL"),
        ("https://crawler.example", "https://x:99999", "url: expected an http or https URL"),
        (SECRET, "whsec_c2hvcnQ=", "secret: expected whsec_ and the base64 of 24 to 64"),
        (SECRET, "whsec_!", "secret: expected whsec_"),
        (SECRET, SECRET.removeprefix("whsec_"), "secret: expected whsec_"),
        ("connectors.firecrawl", "connectors.firecraw", "did you mean firecrawl?"),
        ("connectors.firecrawl", "connectors.http", "there are action, imagine"),
        ("connectors.firecrawl", 'connectors."firecrawl."', "names no subtype"),
        ("connectors.firecrawl", "conectors.firecrawl", "conectors is unknown: did you mean"),
    ],
)
def test_a_fault_is_named_with_its_table_and_key(
    file: Path, replaced: str, by: str, problem: str
) -> None:
    told = problems(file, GOOD.replace(replaced, by, 1))
    assert any(problem in one for one in told), told


def test_all_faults_are_told_at_once(file: Path) -> None:
    assert problems(file, "[connectors.action]\nretries = 3\n[connectors.ticket]\n") == [
        "[connectors.action] retries is unknown: there are url, secret, timeoutSeconds,"
        " callbackTimeoutSeconds, heartbeatSeconds, replaySafe",
        "[connectors.action] url is missing",
        "[connectors.action] secret is missing",
        "[connectors.ticket] url is missing",
        "[connectors.ticket] secret is missing",
    ]


def test_a_subtype_without_quotes_is_explained(file: Path) -> None:
    told = problems(file, GOOD.replace('"action.start_thread"', "action.start_thread"))
    assert any('is written [connectors."action.start_thread"]' in one for one in told)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[connectors", "is no TOML"),
        (b"\xff", "is not UTF-8"),
        (b"#" * 1_000_001, "is bigger than"),
        ("connectors = 5", "expected tables"),
        ("connectors.action = 5", "[connectors.action] expected a table"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused(
    file: Path, content: str | bytes, problem: str
) -> None:
    (told,) = problems(file, content)
    assert problem in told


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(SettingsError, match=f"METRONOME_CONNECTORS: can't read {path}"):
            load(path)


def test_a_connector_shows_no_secret() -> None:
    shown = repr(Connector("action", "http://x/?token=hidden", SECRET))
    assert SECRET not in shown
    assert "hidden" not in shown
