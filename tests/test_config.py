from __future__ import annotations

from pathlib import Path

import pytest

from app.config import Settings, SettingsError, mask_url, variables


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    return caught.value.problems


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings.database_url is None
    assert settings.home == Path.cwd() / "var"
    assert settings.address == "127.0.0.1:8000"
    assert settings.listen
    assert settings == Settings()


def test_an_empty_variable_is_an_unset_one() -> None:
    assert Settings.from_env(dict.fromkeys(variables(), "")) == Settings()


def test_every_variable_is_read() -> None:
    environ = {
        "DATABASE_URL": "postgres://me:pw@db/metronome",
        "METRONOME_HOME": "/srv/a b",
        "HOST": "::1",
        "PORT": "9000",
        "METRONOME_BOOTSTRAP_KEY": "k" * 20,
        "METRONOME_EXECUTOR_THREADS": "64",
        "METRONOME_LEASE_SECONDS": "2.5",
        "METRONOME_POLL_SECONDS": "0.05",
        "METRONOME_LISTEN": "off",
        "METRONOME_LIVENESS": "OFF",
        "METRONOME_GRACE_SECONDS": "0",
        "METRONOME_LOG_LEVEL": "DEBUG",
        "METRONOME_WEB_WORKERS": "3",
        "METRONOME_WEB_THREADS": "5",
        "METRONOME_HTTP_ALLOW_PRIVATE": "localhost, 10.0.0.0/8,::1",
        "METRONOME_CONNECTORS": "/etc/metronome/connectors.toml",
        "METRONOME_PUBLIC_URL": "https://metronome.example/base/",
        "METRONOME_MAX_BODY_BYTES": "2000000",
        "METRONOME_MAX_OUTPUT_BYTES": "3000000",
    }
    assert set(environ) == set(variables())
    settings = Settings.from_env(environ)
    assert settings == Settings(
        database_url="postgres://me:pw@db/metronome",
        home=Path("/srv/a b"),
        host="::1",
        port=9000,
        bootstrap_key="k" * 20,
        executor_threads=64,
        lease_seconds=2.5,
        poll_seconds=0.05,
        listen=False,
        liveness="off",
        grace_seconds=0,
        log_level="debug",
        web_workers=3,
        web_threads=5,
        http_allow_private=("localhost", "10.0.0.0/8", "::1"),
        connectors_file=Path("/etc/metronome/connectors.toml"),
        public_url="https://metronome.example/base",
        max_body_bytes=2_000_000,
        max_output_bytes=3_000_000,
    )
    assert settings.address == "[::1]:9000"
    assert Settings.from_env(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://db/metronome"),
        ("DATABASE_URL", "metronome"),
        ("DATABASE_URL", "postgresql://[/x"),
        ("HOST", "not a host"),
        ("HOST", "-x"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("PORT", "٣٤"),
        ("METRONOME_HOME", "a\0b"),
        ("METRONOME_BOOTSTRAP_KEY", "too-short"),
        ("METRONOME_BOOTSTRAP_KEY", "with a space in the key"),
        ("METRONOME_BOOTSTRAP_KEY", "ä" * 20),
        ("METRONOME_EXECUTOR_THREADS", "0"),
        ("METRONOME_EXECUTOR_THREADS", "257"),
        ("METRONOME_LEASE_SECONDS", "0.5"),
        ("METRONOME_LEASE_SECONDS", "nan"),
        ("METRONOME_LEASE_SECONDS", "inf"),
        ("METRONOME_LEASE_SECONDS", "1e3"),
        ("METRONOME_POLL_SECONDS", "0"),
        ("METRONOME_LISTEN", "perhaps"),
        ("METRONOME_GRACE_SECONDS", "-1"),
        ("METRONOME_LOG_LEVEL", "loud"),
        ("METRONOME_HTTP_ALLOW_PRIVATE", "10.0.0.0/33"),
        ("METRONOME_HTTP_ALLOW_PRIVATE", "10.0.0.256"),
        ("METRONOME_HTTP_ALLOW_PRIVATE", "http://internal"),
        ("METRONOME_CONNECTORS", "a\0b"),
        ("METRONOME_PUBLIC_URL", "metronome.example"),
        ("METRONOME_PUBLIC_URL", "ftp://metronome.example"),
        ("METRONOME_PUBLIC_URL", "https://me@metronome.example"),
        ("METRONOME_PUBLIC_URL", "https://metronome.example?x"),
        ("METRONOME_PUBLIC_URL", "https://metronome.example:99999"),
        ("METRONOME_MAX_BODY_BYTES", "1"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(variable: str, value: str) -> None:
    (problem,) = problems(**{variable: value})
    assert problem.startswith(f"{variable} is ")
    assert ": expected " in problem


def test_all_faults_are_told_at_once() -> None:
    told = problems(PORT="x", METRONOME_LEASE_SECONDS="x", METRONOME_POLL_SECONDS="x")
    assert [problem.split()[0] for problem in told] == [
        "PORT",
        "METRONOME_LEASE_SECONDS",
        "METRONOME_POLL_SECONDS",
    ]
    assert told[0] == "PORT is 'x': expected a whole number from 1 to 65535"


def test_a_secret_is_never_shown() -> None:
    told = problems(METRONOME_BOOTSTRAP_KEY="hunter2", DATABASE_URL="mysql://me:hunter2@db/x")
    assert "hunter2" not in "".join(told)
    settings = Settings(bootstrap_key="hunter2" * 3, database_url="postgresql://me:hunter2@db/x")
    assert "hunter2" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    "wrong", ["METRONOME_LEASE", "METRONOME_LEASE_SECOND", "METRONOME_LEESE_SECONDS"]
)
def test_a_misspelt_variable_is_refused_with_the_right_name(wrong: str) -> None:
    assert problems(**{wrong: "5"}) == (
        f"{wrong} is unknown: did you mean METRONOME_LEASE_SECONDS?",
    )


def test_a_prefix_too_many_is_pointed_out() -> None:
    assert problems(METRONOME_PORT="5") == ("METRONOME_PORT is unknown: did you mean PORT?",)


def test_a_variable_unlike_any_setting_is_refused() -> None:
    assert problems(METRONOME_QQQQ="5") == ("METRONOME_QQQQ is unknown: there is no such setting",)


def test_variables_of_the_client_are_not_taken_for_typos() -> None:
    Settings.from_env({"METRONOME_URL": "http://x", "METRONOME_API_KEY": "y"})


def test_the_file_of_connectors_is_found_from_everywhere() -> None:
    settings = Settings.from_env({"METRONOME_CONNECTORS": "connectors.toml"})
    assert settings.connectors_file == Path.cwd() / "connectors.toml"
    assert Settings.from_env(settings.to_env()) == settings


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"HOST": "0.0.0.0", "PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"HOST": "::"}, "http://[::1]:8000"),
        ({"HOST": "metronome.internal"}, "http://metronome.internal:8000"),
        ({"METRONOME_PUBLIC_URL": "https://m.example/"}, "https://m.example"),
    ],
)
def test_remote_sides_are_told_where_to_call_back(environ: dict[str, str], url: str) -> None:
    assert Settings.from_env(environ).base_url == url


def test_children_do_not_get_the_bootstrap_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRONOME_BOOTSTRAP_KEY", "a-key-of-twenty-chars-or-more")
    monkeypatch.setenv("PGPASSFILE", "/etc/metronome.pgpass")
    env = Settings(bootstrap_key="a-key-of-twenty-chars-or-more").child_environment()
    assert "a-key-of-twenty-chars-or-more" not in env.values()
    assert env["PGPASSFILE"] == "/etc/metronome.pgpass"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://me:pw@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgresql://db/x?password=pw&a=b", "postgresql://db/x?password=***&a=b"),
        ("postgresql:///x?host=/run", "postgresql:///x?host=/run"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked
