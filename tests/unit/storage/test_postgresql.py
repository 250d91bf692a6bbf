"""URLs of a PostgreSQL sink."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.sinks import make_sink


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tracker:s3cr%zzt@127.0.0.1/db",
        "postgresql://tracker:s3cret@127.0.0.1/db?sslmod=require",
        "postgresql://tracker:s3cret@127.0.0.1:port/db",
        "postgres://tracker:s3cret@127.0.0.1/db?timescale=yes",
        "postgresql://tracker:s3cret@[127.0.0.1/db",
        "postgresql://tracker:s3cret@127.0.0.1/db?connect_timeout=s3cret",
        "postgresql:tracker:s3cret",
    ],
)
def test_message_about_malformed_url_does_not_quote_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$") as error:
        make_sink(cast("Any", None), url)
    assert "s3cr" not in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None or error.value.__suppress_context__


def test_shown_url_has_no_password() -> None:
    address = PostgreSQLAddress.from_url("postgres://me:s3cret@db.example:5433/fleet?timescale=1")
    assert address.url == "postgresql://me@db.example:5433/fleet"
    assert address.timescale
    assert "s3cret" not in repr(address)
    socket = PostgreSQLAddress.from_url("postgresql:///fleet?host=/run/postgresql&password=s3cret")
    assert socket.url == "postgresql://%2Frun%2Fpostgresql/fleet"
