"""Responses to commands in Redis, and the claimed identity of invalid commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.command import (
    DELIVERED,
    Command,
    Reason,
    Response,
    Status,
    StatusUpdate,
    claimed_identity,
)

RESPONSE = {
    b"command_id": b"a",
    b"device_id": b"356307042441013",
    b"instance_id": b"ingest-1",
    b"status": b"failed",
    b"response": "é\r\n".encode(),
    b"reason": b"timeout",
    b"at": b"2026-11-22T10:00:00.000Z",
}


def test_response_to_a_command_is_parsed() -> None:
    update = StatusUpdate(Status.FAILED, "timeout", "é\r\n")
    assert Response.from_fields(RESPONSE) == Response(
        "a", "356307042441013", "ingest-1", update, "2026-11-22T10:00:00.000Z"
    )


def test_response_requires_only_the_status() -> None:
    assert Response.from_fields({b"status": b"delivered"}) == Response("", "", "", DELIVERED, "")


def test_unknown_fields_of_a_response_are_ignored() -> None:
    unknown = {b"\xff": b"\xfe", b"more": b"x"}
    assert Response.from_fields({**unknown, **RESPONSE}) == Response.from_fields(RESPONSE)


@pytest.mark.parametrize("status", list(Status))
def test_every_status_except_delivered_is_final(status: Status) -> None:
    response = Response.from_fields({**RESPONSE, b"status": status.encode()})
    assert response.update.status is status
    assert response.final is (status is not Status.DELIVERED)


@pytest.mark.parametrize("status", [None, b"", b"FAILED", b"failed ", b"done", b"\xff", b"a\nb"])
def test_response_without_a_valid_status_is_rejected(status: bytes | None) -> None:
    fields = {name: value for name, value in RESPONSE.items() if name != b"status"}
    if status is not None:
        fields[b"status"] = status
    with pytest.raises(ValueError, match="unknown status: ") as caught:
        Response.from_fields(fields)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [name for name in RESPONSE if name != b"status"])
def test_response_that_is_not_utf_8_is_parsed(name: bytes) -> None:
    response = Response.from_fields({**RESPONSE, name: b"a\xff"})
    texts = {
        b"command_id": response.command_id,
        b"device_id": response.device_id,
        b"instance_id": response.instance_id,
        b"response": response.update.response,
        b"reason": response.update.reason,
        b"at": response.at,
    }
    assert texts[name] == "a\N{REPLACEMENT CHARACTER}"


@given(st.dictionaries(st.one_of(st.sampled_from([*RESPONSE]), st.binary()), st.binary()))
def test_any_fields_are_parsed_or_raise_a_value_error(fields: dict[bytes, bytes]) -> None:
    try:
        status = Response.from_fields(fields).update.status
    except ValueError:
        assert fields.get(b"status", b"") not in {known.encode() for known in Status}
    else:
        assert status.encode() == fields[b"status"]


def test_failed_status_update_has_a_reason() -> None:
    assert StatusUpdate.failed(Reason.OFFLINE) == StatusUpdate(Status.FAILED, "offline", "")
    assert StatusUpdate.failed(Reason.MALFORMED, "why") == StatusUpdate(
        Status.FAILED, "malformed", "why"
    )


# Claimed identities.


@pytest.mark.parametrize(
    ("command_id", "usable"),
    [
        *((b"a", True), (b"x" * 64, True), (b"x" * 65, False), (b"", False), (b"a b", False)),
        *((b"a\n", False), (b"\xff", False), ("é".encode(), False), (b"a\x00", False)),
    ],
)
@pytest.mark.parametrize(
    ("device_id", "known"),
    [
        *((b"356307042441013", True), (b"35630704244101", False), (b"3563070424410131", False)),
        *((b"", False), (b"356307042441013\n", False), (b"35630704244101\xff", False)),
    ],
)
def test_identity_read_from_a_malformed_entry_contains_only_valid_ids(
    command_id: bytes, usable: bool, device_id: bytes, known: bool
) -> None:
    fields = {b"command_id": command_id, b"device_id": device_id, b"payload": b"\xff"}
    assert claimed_identity(fields) == (
        command_id.decode() if usable else "",
        device_id.decode() if known else "",
    )


def test_identity_read_from_an_entry_without_ids_is_empty() -> None:
    assert claimed_identity({}) == ("", "")
    assert claimed_identity({b"\xff": b"\xff"}) == ("", "")


@given(st.binary(max_size=70), st.binary(max_size=20))
def test_identity_read_from_any_entry_is_valid_or_empty(
    command_id: bytes, device_id: bytes
) -> None:
    claimed = claimed_identity({b"command_id": command_id, b"device_id": device_id})
    assert claimed[0].encode() in (b"", command_id)
    assert claimed[1].encode() in (b"", device_id)
    usable = claimed[0] or "a", claimed[1] or "1" * 15
    command = Command.checked(*usable, "getver", "2026-11-22T10:00:00Z")
    assert (command.command_id, command.device_id) == usable
