"""Responses to commands in Redis, and the claimed identity of invalid commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.command import (
    DELIVERED,
    MAX_RECORDED_BYTES,
    MAX_SENDER_LENGTH,
    Command,
    Reason,
    Recorded,
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


def test_response_repeats_the_text_and_the_sender_of_its_command() -> None:
    recorded = {
        b"payload": "Ünïcode".encode(),
        b"payload_hex": b"",
        b"sender": b"anna",
        b"sent_at": b"2026-11-22T11:00:00+01:00",
    }
    response = Response.from_fields({**RESPONSE, **recorded})
    assert response.recorded == Recorded("Ünïcode", "", "anna", "2026-11-22T10:00:00.000Z")
    assert response.recorded.text == "Ünïcode"


def test_response_of_an_earlier_version_repeats_nothing() -> None:
    assert Response.from_fields(RESPONSE).recorded is None


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (Command("a", "1", "getinfo", 0), "getinfo"),
        (Command("a", "1", "", 0, raw=b"\x00\xff"), "0x00ff"),
        (Command("a", "1", "x" * MAX_RECORDED_BYTES, 0), "x" * MAX_RECORDED_BYTES),
        (Command("a", "1", "x" * 4096, 0), "x" * (MAX_RECORDED_BYTES - 3) + "…"),
        (Command("a", "1", "é" * 2048, 0), "é" * 254 + "…"),
        (Command("a", "1", "", 0, raw=bytes(4096)), "0x" + "0" * (MAX_RECORDED_BYTES - 3) + "…"),
    ],
)
def test_text_of_a_command_is_recorded_and_cut_to_a_limit(command: Command, text: str) -> None:
    recorded = Recorded.of(command)
    assert recorded.text == text
    assert len((recorded.payload or recorded.payload_hex).encode()) <= MAX_RECORDED_BYTES
    names_and_values = [part.encode() for part in command.to_fields()]
    fields = dict(zip(names_and_values[::2], names_and_values[1::2], strict=True))
    assert Recorded.from_fields(fields) == recorded


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_sender_and_time_of_any_entry_are_printable_and_bounded(name: bytes, at: bytes) -> None:
    recorded = Recorded.from_fields({b"payload": name, b"sender": name, b"sent_at": at})
    assert recorded.sender.isprintable()
    assert len(recorded.sender) <= MAX_SENDER_LENGTH
    assert recorded.sent_at == "" or recorded.sent_at.endswith("Z")
    fields = {b"sender": recorded.sender.encode(), b"sent_at": recorded.sent_at.encode()}
    again = Recorded.from_fields(fields)
    assert (again.sender, again.sent_at) == (recorded.sender, recorded.sent_at)


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
        *((b"356307042441013", True), (b"A0000012345678", True), (b"a0000012345678", False)),
        *(
            (b"", False),
            (b"356307042441013\n", False),
            (b"35630704244101\xff", False),
            (b"1" * 33, False),
        ),
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
