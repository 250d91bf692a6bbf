"""Tests of the sender: the states of a command on one connection."""

from __future__ import annotations

import pytest

from tests.unit.commands.doubles import DEVICE, DeliveryBench, Device
from tracker.commands.lateanswers import MAX_DUE
from tracker.commands.ledger import Effect
from tracker.commands.sender import TRANSITIONS, CommandSender, State
from tracker.commands.shared import Timing
from tracker.interfaces import Traffic


@pytest.fixture
def one() -> DeliveryBench:
    return DeliveryBench().begin()


def claimed(one: DeliveryBench, expires_in: float = 86_400.0) -> Device:
    """Return a device that becomes busy while a command for it is claimed."""
    device = one.login()
    device.busy_next = [False, True]
    one.send("c1", expires_in=expires_in)
    assert one.ledger.called("claim") == ["c1"]
    assert device.waiting is not None
    return device


def timed_out(one: DeliveryBench, tokens: bool = False) -> Device:
    """Return a device that has not answered its first command in time."""
    device = one.login(tokens=tokens)
    one.send("c1", timeout=10)
    assert device.written == ["c1"]
    one.clock.advance(10)
    assert one.ended == {"c1": "failed/timeout"}
    return device


def test_every_state_with_a_transition_has_a_handler_and_can_be_reached() -> None:
    reached = {state for row in TRANSITIONS.values() for state in row.values()}
    assert set(TRANSITIONS) == set(CommandSender._WORK)
    assert reached | {State.RECOVERING, State.HELD_BACK} == set(State)
    assert set(State) - set(TRANSITIONS) == {State.KEPT, State.UNWRITTEN, State.OVER}


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "responded"),
        ({"refused": True}, "rejected"),
        ({"unknown": True}, "responded/unknown_command"),
    ],
    ids=["answered", "nack", "unknown"],
)
def test_command_is_written_and_answered(
    facts: dict[str, bool], status: str, one: DeliveryBench
) -> None:
    device = one.login()
    one.send("c1", payload="getinfo", codec="14")
    assert device.written == ["getinfo"]
    assert one.backlog() == (0, True)
    one.clock.advance(3)
    device.answer("INI:2026/1/1", codec="14", **facts)
    assert one.ended == {"c1": status}
    assert one.ledger.texts == {"c1": "INI:2026/1/1"}
    assert one.ledger.calls == [("claim", "c1"), ("delivered", "c1"), ("finish", "c1")]
    assert one.backlog() == (0, False)
    assert one.delivery.held == 0
    assert one.delivery.answers.sum == pytest.approx(3)


def test_command_fails_at_its_timeout(one: DeliveryBench) -> None:
    device = one.login()
    one.send("c1", timeout=10)
    one.clock.advance(9.9)
    assert one.backlog() == (0, True)
    one.clock.advance(0.2)
    assert one.ended == {"c1": "failed/timeout"}
    assert device.written == ["c1"]


@pytest.mark.parametrize("how", ["closes", "reconnects"])
def test_command_fails_when_the_connection_ends_before_the_answer(
    how: str, one: DeliveryBench
) -> None:
    device = one.login()
    one.send("c1")
    if how == "closes":
        device.close()
    else:
        newer = one.login()
        device.answer("too late, on the old connection")
        newer.answer("unsolicited")
        device.close()
    assert one.ended == {"c1": "failed/disconnected"}
    if how == "reconnects":
        assert newer.written == []
        one.send("c2")
        assert newer.written == ["c2"]
        newer.answer("an answer")
        assert one.ended["c2"] == "responded"
    assert device.written == ["c1"]


def test_final_response_follows_the_delivered_response(one: DeliveryBench) -> None:
    gate = one.ledger.close("delivered")
    device = one.login()
    one.send("c1")
    device.answer("an answer")
    assert one.ended == {}
    assert one.backlog() == (1, False)
    gate.callback(None)
    assert one.ended == {"c1": "responded"}


def test_command_is_written_only_after_the_claim(one: DeliveryBench) -> None:
    gate = one.ledger.close("claim")
    device = one.login()
    one.send("c1")
    assert device.written == []
    gate.callback(None)
    assert device.written == ["c1"]


def test_command_that_expires_during_the_claim_is_not_written(one: DeliveryBench) -> None:
    gate = one.ledger.close("claim")
    device = one.login()
    one.send("c1", expires_in=60)
    one.clock.advance(61)
    gate.callback(None)
    assert device.written == []
    assert one.ended == {"c1": "expired"}


@pytest.mark.parametrize("effect", [Effect.OVER, Effect.GONE])
def test_command_whose_claim_fails_is_dropped(effect: Effect, one: DeliveryBench) -> None:
    one.ledger.effects["claim", "c1"] = [effect]
    device = one.login()
    one.send("c1")
    one.send("c2")
    assert device.written == ["c2"]
    assert "c1" not in one.ended
    assert one.delivery.held == 1


def test_claimed_command_waits_until_the_connection_is_free(one: DeliveryBench) -> None:
    device = claimed(one)
    one.clock.advance(30)
    assert device.written == []
    device.free()
    assert device.written == ["c1"]  # in the same reactor turn
    device.answer("an answer")
    assert one.ended == {"c1": "responded"}


def test_claimed_command_expires_while_the_connection_is_busy(one: DeliveryBench) -> None:
    device = claimed(one, expires_in=60)
    one.clock.advance(61)
    assert one.ended == {"c1": "expired"}
    device.free()
    one.send("c2")
    assert device.written == ["c2"]


@pytest.mark.parametrize("how", ["closes", "reconnects"])
def test_claim_is_returned_when_the_connection_ends(how: str, one: DeliveryBench) -> None:
    device = claimed(one)
    if how == "reconnects":
        newer = one.login()
    device.close()
    assert one.ledger.calls == [("claim", "c1"), ("return", "c1")]
    assert device.written == []
    assert one.delivery.held == 0
    # The command waits for a device that is connected here: it has to be fetched.
    assert one.fetched == ([] if how == "closes" else [DEVICE])
    if how == "reconnects":
        assert newer.written == []


def test_claim_won_after_the_connection_ended_is_returned(one: DeliveryBench) -> None:
    gate = one.ledger.close("claim")
    device = one.login()
    one.send("c1")
    device.close()
    gate.callback(None)
    assert one.ledger.calls == [("claim", "c1"), ("return", "c1")]
    assert device.written == []


def test_command_that_the_protocol_cannot_express_is_malformed(one: DeliveryBench) -> None:
    device = one.login()
    one.send("c1", codec="15")
    one.send("c2")
    assert one.ended == {"c1": "failed/malformed"}
    assert one.ledger.texts["c1"] != ""
    assert device.written == ["c2"]


def test_limit_for_sleeping_radios_applies_only_before_the_claim() -> None:
    one = DeliveryBench(Timing(radio_sleeps=120)).begin()
    device = one.login(busy=True)
    one.send("c1")
    assert device.silence_limits == [120]
    device.free()
    assert device.written == ["c1"]
    # A frame has arrived just before the claim: the sender does not wait for another one.
    assert device.silence_limits == [120, 0]


# Late answers.


def test_late_answer_does_not_count_as_the_answer_to_the_next_command(one: DeliveryBench) -> None:
    device = timed_out(one)
    one.send("c2")
    one.clock.advance(30)
    assert one.backlog() == (1, False)
    assert device.written == ["c1"]
    device.answer("the answer to c1")
    assert device.written == ["c1", "c2"]
    device.answer("the answer to c2")
    assert one.ended == {"c1": "failed/timeout", "c2": "responded"}
    assert one.ledger.texts["c2"] == "the answer to c2"


def test_next_command_is_written_when_the_late_answer_is_overdue() -> None:
    one = DeliveryBench(Timing(late_answer=60)).begin()
    device = timed_out(one)
    one.send("c2")
    one.clock.advance(59)
    assert device.written == ["c1"]
    one.clock.advance(1.1)
    assert device.written == ["c1", "c2"]
    device.answer("an answer")
    assert one.ended["c2"] == "responded"


def test_late_answer_of_zero_seconds_holds_back_no_command() -> None:
    one = DeliveryBench(Timing(late_answer=0)).begin()
    device = timed_out(one)
    one.send("c2")
    assert device.written == ["c1", "c2"]


def test_late_answer_is_dropped_when_the_queue_is_empty(one: DeliveryBench) -> None:
    device = timed_out(one)
    device.answer("the answer to c1")
    device.answer("unsolicited")
    one.send("c2")
    assert device.written == ["c1", "c2"]
    device.answer("the answer to c2")
    assert one.ledger.texts["c2"] == "the answer to c2"


def test_command_in_another_codec_is_not_held_back(one: DeliveryBench) -> None:
    device = timed_out(one)
    one.send("c2", codec="14")
    one.send("c3")
    assert device.written == ["c1", "c2"]
    device.answer("the answer to c1")
    assert one.backlog()[1]
    device.answer("the answer to c2", codec="14")
    assert device.written == ["c1", "c2", "c3"]
    device.answer("unsolicited, in another codec", codec="14")
    device.answer("the answer to c3")
    for command_id in ("c2", "c3"):
        assert one.ended[command_id] == "responded"
        assert one.ledger.texts[command_id] == f"the answer to {command_id}"


def test_held_back_command_expires_or_is_passed_on(one: DeliveryBench) -> None:
    device = timed_out(one)
    one.send("c2", expires_in=40)
    one.send("c3")
    one.clock.advance(40)
    assert one.ended["c2"] == "expired"
    assert one.backlog() == (1, False)
    device.close()
    assert one.ledger.called("offer") == ["c3"]
    assert device.written == ["c1"]


def test_recovered_command_is_written_on_a_newer_connection() -> None:
    one = DeliveryBench(created=True).begin()
    device = timed_out(one)
    recovered = one.ledger.close("recover")
    one.send("c2")
    newer = one.login()
    device.close()
    recovered.callback(None)
    assert newer.written == ["c2"]
    assert device.written == ["c1"]


@pytest.mark.parametrize("held", ["before", "after"])
def test_new_connection_does_not_wait_for_a_late_answer(held: str, one: DeliveryBench) -> None:
    device = timed_out(one)
    if held == "before":
        one.send("c2")
    newer = one.login()
    device.close()
    if held == "after":
        one.send("c2")
    assert newer.written == ["c2"]
    newer.answer("an answer")
    assert one.ended["c2"] == "responded"
    assert device.written == ["c1"]


# Tokens.


def test_answer_with_another_token_answers_no_command(one: DeliveryBench) -> None:
    device = one.login(tokens=True)
    one.send("c1")
    device.answer("an answer of long ago", token="c0")
    assert one.ended == {}
    device.answer("the answer to c1", token="c1")
    assert one.ended == {"c1": "responded"}


def test_answer_without_a_token_answers_the_command_that_was_written(one: DeliveryBench) -> None:
    device = one.login(tokens=True)
    one.send("c1")
    device.answer("the answer to c1")
    assert one.ended == {"c1": "responded"}


def test_answer_with_a_token_does_not_answer_a_command_without_one(one: DeliveryBench) -> None:
    device = one.login()
    one.send("c1")
    device.answer("unsolicited", token="c1")
    assert one.ended == {}


def test_command_with_a_token_does_not_wait_for_a_late_answer(one: DeliveryBench) -> None:
    device = timed_out(one, tokens=True)
    one.send("c2")
    assert device.written == ["c1", "c2"]
    device.answer("the answer to c1", token="c1")
    assert one.ended == {"c1": "failed/timeout"}
    device.answer("the answer to c2", token="c2")
    assert one.ledger.texts["c2"] == "the answer to c2"


def test_late_answer_without_a_token_is_not_taken_for_that_to_the_next_command(
    one: DeliveryBench,
) -> None:
    device = timed_out(one, tokens=True)
    one.send("c2")
    assert device.written == ["c1", "c2"]
    device.answer("the answer to c1")
    assert one.ended == {"c1": "failed/timeout"}
    device.answer("the answer to c2")
    assert one.ledger.texts["c2"] == "the answer to c2"


def test_device_that_repeats_no_token_is_not_sent_a_command_before_its_late_answer(
    one: DeliveryBench,
) -> None:
    device = one.login(tokens=True)
    one.send("c0")
    device.answer("the answer to c0")
    one.send("c1", timeout=10)
    one.clock.advance(10)
    one.send("c2")
    assert device.written == ["c0", "c1"]
    device.answer("the answer to c1")
    assert device.written == ["c0", "c1", "c2"]
    device.answer("the answer to c2")
    assert one.ledger.texts["c2"] == "the answer to c2"


def test_device_that_repeats_tokens_again_is_sent_commands_at_once(one: DeliveryBench) -> None:
    device = one.login(tokens=True)
    one.send("c0")
    device.answer("the answer to c0")
    one.send("c1", timeout=10)
    one.clock.advance(10)
    one.send("c2")
    device.answer("unsolicited", codec="14", token="x")
    assert device.written == ["c0", "c1"]
    device.answer("the answer to c1", token="c1")
    assert device.written == ["c0", "c1", "c2"]
    one.clock.advance(10)
    one.send("c3")
    assert device.written == ["c0", "c1", "c2", "c3"]


def test_number_of_late_answers_that_may_be_due_is_limited(one: DeliveryBench) -> None:
    device = one.login(tokens=True)
    for number in range(MAX_DUE + 1):
        one.send(f"c{number}", timeout=0.5)
        one.clock.advance(0.5)
    assert len(device.written) == MAX_DUE
    one.clock.advance(60 - MAX_DUE * 0.5)
    assert len(device.written) == MAX_DUE + 1


def test_observer_sees_what_people_may_see_of_a_command(one: DeliveryBench) -> None:
    seen: list[tuple[Traffic, bytes]] = []
    device = one.login()
    device.observe(lambda *what: seen.append(what))
    device.shown = b"***"
    one.send("c1")
    assert seen == [(Traffic.SENT, b"***")]
