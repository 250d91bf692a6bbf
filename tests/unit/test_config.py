"""Options and environment variables, and the errors for invalid ones."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tracker.config import (
    DEFAULT_LISTEN,
    DEFAULT_STANDALONE_LISTEN,
    ConfigError,
    Listen,
    data_folder,
    ingest_streams,
    parse_listen,
    process_streams,
    stable_name,
)
from tracker.redis.address import RedisAddress, redis_address

# --listen


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("teltonika=tcp:5027", "tcp:5027"),
        ("teltonika=tcp:5027:interface=127.0.0.1", "tcp:5027:interface=127.0.0.1"),
        ("teltonika=tcp:5027:backlog=7", "tcp:5027:backlog=7"),
        ("teltonika=tcp:5027:127.0.0.1:7", "tcp:5027:127.0.0.1:7"),
        ("teltonika=unix:/run/tracker.sock", "unix:/run/tracker.sock"),
        ("teltonika=systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
    ],
)
def test_listen_names_a_vendor_and_an_endpoint(text: str, endpoint: str) -> None:
    assert parse_listen([text], ["teltonika"]) == (Listen("teltonika", endpoint, given=text),)


def test_listen_may_be_given_several_times_and_keeps_its_order() -> None:
    given = ["queclink=tcp:5004", "teltonika=tcp:5027", "teltonika=tcp:5028"]
    found = parse_listen(given, ["teltonika", "queclink"])
    assert [listen.given for listen in found] == given
    assert [(listen.vendor, listen.endpoint) for listen in found] == [
        ("queclink", "tcp:5004"),
        ("teltonika", "tcp:5027"),
        ("teltonika", "tcp:5028"),
    ]


def test_missing_listen_option_opens_no_port() -> None:
    assert parse_listen([], ["teltonika"]) == ()


@pytest.mark.parametrize("text", [DEFAULT_LISTEN, DEFAULT_STANDALONE_LISTEN])
def test_default_values_of_listen_are_valid(text: str) -> None:
    (listen,) = parse_listen([text], ["teltonika"])
    assert f"{listen.vendor}={listen.endpoint}" == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "teltonika",
        "teltonika=",
        "tcp:5027",
        "tcp:5027:interface=127.0.0.1",
        "tcp:interface=127.0.0.1",
    ],
)
def test_malformed_listen_is_reported_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_listen([text], ["teltonika"])
    assert str(raised.value) == (
        f"--listen {text}: must be VENDOR=ENDPOINT, for example teltonika=tcp:5027"
    )


@pytest.mark.parametrize("vendor", ["", "Teltonika", "teltonika ", "unknown"])
def test_unknown_vendor_is_reported_with_the_installed_ones(vendor: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_listen([f"{vendor}=tcp:5027"], ["teltonika", "queclink"])
    assert f"unknown vendor {vendor!r}" in str(raised.value)
    assert "(installed: queclink, teltonika)" in str(raised.value)


# Redis


@pytest.mark.parametrize(
    ("given", "environ", "host"),
    [
        ("redis://option", {"REDIS_URL": "redis://variable"}, "option"),
        (None, {"REDIS_URL": "redis://variable"}, "variable"),
        ("", {"REDIS_URL": "redis://variable"}, "variable"),
        (None, {"REDIS_URL": ""}, "127.0.0.1"),
        (None, {}, "127.0.0.1"),
    ],
)
def test_option_precedes_the_variable_and_the_default(
    given: str | None, environ: dict[str, str], host: str
) -> None:
    assert redis_address(given, environ) == RedisAddress(host=host, port=6379, database=0)


@pytest.mark.parametrize("given", ["http://localhost", "redis://host:port", "redis://h/x"])
def test_invalid_redis_url_is_a_config_error(given: str) -> None:
    with pytest.raises(ConfigError, match="Redis URL: "):
        redis_address(given, {})
    with pytest.raises(ConfigError, match="Redis URL: "):
        redis_address(None, {"REDIS_URL": given})


def test_config_error_about_redis_contains_no_password() -> None:
    with pytest.raises(ConfigError) as raised:
        redis_address("redis://:s3cret@host/x", {})
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


# Names


@pytest.mark.parametrize(
    ("given", "environ", "name"),
    [
        ("eu-1", {"INSTANCE_ID": "eu-2"}, "eu-1"),
        (None, {"INSTANCE_ID": "eu-2"}, "eu-2"),
        ("", {"INSTANCE_ID": "eu-2"}, "eu-2"),
        (None, {"CONSUMER_NAME": "eu-3"}, "box.example-1"),
        (None, {}, "box.example-1"),
    ],
)
def test_name_is_given_or_derived_from_the_host_name(
    given: str | None, environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box.example")
    assert stable_name("--instance-id", given, environ, "INSTANCE_ID") == name


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 64])
def test_name_of_allowed_characters_is_accepted(name: str) -> None:
    assert stable_name("--instance-id", name, {}, "INSTANCE_ID") == name


@pytest.mark.parametrize("name", ["x" * 65, "eu 1", "eu:1", "eu/1", "ë", "eu\n", "٣", "eu*"])
def test_name_with_other_characters_or_too_long_is_rejected(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        stable_name("--instance-id", name, {}, "INSTANCE_ID")
    assert str(raised.value).startswith("--instance-id: ")
    assert repr(name) in str(raised.value)
    with pytest.raises(ConfigError):
        stable_name("--instance-id", None, {"INSTANCE_ID": name}, "INSTANCE_ID")


def test_host_name_with_other_characters_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "x" * 64)
    with pytest.raises(ConfigError, match="--consumer-name"):
        stable_name("--consumer-name", None, {}, "CONSUMER_NAME")


# Streams

BOTH = ["teltonika", "queclink"]
VARIABLE = "REDIS_TELEMETRY_STREAM"


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}, {VARIABLE: "  "}])
def test_each_vendor_has_its_own_stream(environ: dict[str, str]) -> None:
    assert ingest_streams(environ, BOTH) == {
        "teltonika": "telemetry:teltonika",
        "queclink": "telemetry:queclink",
    }
    assert process_streams(environ, BOTH) == {
        "telemetry:teltonika": "teltonika",
        "telemetry:queclink": "queclink",
    }


@pytest.mark.parametrize("pinned", ["gps", " gps ", "gps\n"])
def test_stream_name_without_a_placeholder_applies_to_teltonika(pinned: str) -> None:
    environ = {VARIABLE: pinned}
    assert ingest_streams(environ, BOTH) == {"teltonika": "gps", "queclink": "telemetry:queclink"}
    assert process_streams(environ, BOTH) == {"gps": "teltonika", "telemetry:queclink": "queclink"}


def test_stream_name_without_a_placeholder_is_ignored_without_teltonika() -> None:
    assert ingest_streams({VARIABLE: "gps"}, ["queclink"]) == {"queclink": "telemetry:queclink"}
    assert process_streams({VARIABLE: "gps"}, ["queclink"]) == {"telemetry:queclink": "queclink"}


def test_stream_name_with_a_placeholder_applies_to_every_vendor() -> None:
    environ = {VARIABLE: "eu:{vendor}:positions"}
    assert ingest_streams(environ, BOTH) == {
        "teltonika": "eu:teltonika:positions",
        "queclink": "eu:queclink:positions",
    }
    assert process_streams(environ, BOTH) == {
        "eu:teltonika:positions": "teltonika",
        "eu:queclink:positions": "queclink",
    }


@pytest.mark.parametrize(
    "names", ["gps,old:gps", " gps , old:gps ", "gps,,old:gps,", "gps,old:gps,gps"]
)
def test_processor_reads_several_streams(names: str) -> None:
    assert process_streams({VARIABLE: names}, ["teltonika"]) == {
        "gps": "teltonika",
        "old:gps": "teltonika",
    }


def test_processor_reads_streams_of_a_template_and_of_a_fixed_name() -> None:
    assert process_streams({VARIABLE: "telemetry:{vendor},old"}, BOTH) == {
        "telemetry:teltonika": "teltonika",
        "telemetry:queclink": "queclink",
        "old": "teltonika",
    }


def test_stream_with_the_default_name_of_a_vendor_belongs_to_it() -> None:
    streams = process_streams({VARIABLE: "telemetry:teltonika,telemetry:queclink"}, BOTH)
    assert streams == {"telemetry:teltonika": "teltonika", "telemetry:queclink": "queclink"}


@pytest.mark.parametrize("names", [",", " , ", ""])
def test_empty_list_of_names_gives_the_default(names: str) -> None:
    assert process_streams({VARIABLE: names}, ["teltonika"]) == {"telemetry:teltonika": "teltonika"}


def test_no_stream_is_configured_without_a_vendor() -> None:
    assert ingest_streams({}, []) == {}
    assert process_streams({}, []) == {}


@pytest.mark.parametrize("names", ["gps,old", "gps,", ","])
def test_several_names_are_rejected_for_ingestion(names: str) -> None:
    with pytest.raises(ConfigError, match=VARIABLE):
        ingest_streams({VARIABLE: names}, ["teltonika"])


@pytest.mark.parametrize(
    "name", ["two words", "tab\tbed", "line\nbreak", "no\u00a0break", "{vendor} x"]
)
def test_stream_name_with_spaces_is_rejected(name: str) -> None:
    for streams in (ingest_streams, process_streams):
        with pytest.raises(ConfigError, match=VARIABLE):
            streams({VARIABLE: name}, ["teltonika"])


# Data


@pytest.mark.parametrize(
    ("given", "environ", "folder"),
    [
        ("option", {"TRACKER_DATA": "variable"}, "option"),
        (None, {"TRACKER_DATA": "variable"}, "variable"),
        ("", {"TRACKER_DATA": ""}, "tracker-data"),
        (None, {}, "tracker-data"),
        ("/srv/tracker", {}, "/srv/tracker"),
    ],
)
def test_data_folder_is_absolute_and_not_created(
    given: str | None,
    environ: dict[str, str],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_folder(given, environ) == tmp_path / folder
    assert list(tmp_path.iterdir()) == []
