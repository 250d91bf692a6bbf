"""The life of a command on one connection."""

from __future__ import annotations

import pytest

from tests.unit.commands.doubles import DEVICE, Delivering, Device
from tracker.commands.ledger import Effect
from tracker.commands.sender import TRANSITIONS, CommandSender, State
from tracker.commands.shared import Timing


@pytest.fixture
def one() -> Delivering:
    return Delivering().begin()


def claimed(one: Delivering, expires_in: float = 86_400.0) -> Device:
    """A device that is busy again when a command for it has been claimed."""
    device = one.login()
    device.moods = [False, True]
    one.send("c1", expires_in=expires_in)
    assert one.ledger.taken("claim") == ["c1"]
    assert device.waiting is not None
    return device


def timed_out(one: Delivering) -> Device:
    """A device that has not answered its first command."""
    device = one.login()
    one.send("c1", timeout=10)
    assert device.written == ["c1"]
    one.clock.advance(10)
    assert one.ended == {"c1": "failed/timeout"}
    return device


def test_every_state_with_a_transition_has_work_and_can_be_reached() -> None:
    reached = {state for row in TRANSITIONS.values() for state in row.values()}
    assert set(TRANSITIONS) == set(CommandSender._WORK)
    assert reached | {State.RECOVERING, State.HELD_BACK} == set(State)
    assert set(State) - set(TRANSITIONS) == {State.KEPT, State.UNWRITTEN, State.OVER}


@pytest.mark.parametrize(
    ("refused", "status"), [(False, "responded"), (True, "rejected")], ids=["answered", "nack"]
)
def test_command_is_written_and_answered(refused: bool, status: str, one: Delivering) -> None:
    device = one.login()
    one.send("c1", payload="getinfo", codec="14")
    assert device.written == ["getinfo"]
    assert one.backlog() == (0, True)
    one.clock.advance(3)
    device.say("INI:2026/1/1", codec="14", refused=refused)
    assert one.ended == {"c1": status}
    assert one.ledger.texts == {"c1": "INI:2026/1/1"}
    assert one.ledger.steps == [("claim", "c1"), ("delivered", "c1"), ("finish", "c1")]
    assert one.backlog() == (0, False)
    assert one.delivery.held == 0
    assert one.delivery.answers.sum == pytest.approx(3)


def test_silent_device_has_its_timeout(one: Delivering) -> None:
    device = one.login()
    one.send("c1", timeout=10)
    one.clock.advance(9.9)
    assert one.backlog() == (0, True)
    one.clock.advance(0.2)
    assert one.ended == {"c1": "failed/timeout"}
    assert device.written == ["c1"]


@pytest.mark.parametrize("how", ["closes", "comes again"])
def test_connection_that_ends_before_the_answer(how: str, one: Delivering) -> None:
    device = one.login()
    one.send("c1")
    if how == "closes":
        device.close()
    else:
        newer = one.login()
        device.say("too late, on the old connection")
        newer.say("nobody has asked")
        device.close()
    assert one.ended == {"c1": "failed/disconnected"}
    if how == "comes again":
        assert newer.written == []
        one.send("c2")
        assert newer.written == ["c2"]
        newer.say("an answer")
        assert one.ended["c2"] == "responded"
    assert device.written == ["c1"]


def test_response_waits_until_redis_knows_that_the_command_was_written(one: Delivering) -> None:
    gate = one.ledger.close("delivered")
    device = one.login()
    one.send("c1")
    device.say("an answer")
    assert one.ended == {}
    assert one.backlog() == (1, False)
    gate.callback(None)
    assert one.ended == {"c1": "responded"}


def test_nothing_is_written_before_the_claim_is_won(one: Delivering) -> None:
    gate = one.ledger.close("claim")
    device = one.login()
    one.send("c1")
    assert device.written == []
    gate.callback(None)
    assert device.written == ["c1"]


def test_command_that_expires_while_it_is_claimed_is_not_written(one: Delivering) -> None:
    gate = one.ledger.close("claim")
    device = one.login()
    one.send("c1", expires_in=60)
    one.clock.advance(61)
    gate.callback(None)
    assert device.written == []
    assert one.ended == {"c1": "expired"}


@pytest.mark.parametrize("step", [Effect.OVER, Effect.GONE])
def test_command_that_is_not_won_is_dropped(step: Effect, one: Delivering) -> None:
    one.ledger.results["claim", "c1"] = [step]
    device = one.login()
    one.send("c1")
    one.send("c2")
    assert device.written == ["c2"]
    assert "c1" not in one.ended
    assert one.delivery.held == 1


def test_claimed_command_waits_for_its_turn_again(one: Delivering) -> None:
    device = claimed(one)
    one.clock.advance(30)
    assert device.written == []
    device.free()
    assert device.written == ["c1"]  # in the same turn
    device.say("an answer")
    assert one.ended == {"c1": "responded"}


def test_claimed_command_may_expire(one: Delivering) -> None:
    device = claimed(one, expires_in=60)
    one.clock.advance(61)
    assert one.ended == {"c1": "expired"}
    device.free()
    one.send("c2")
    assert device.written == ["c2"]


@pytest.mark.parametrize("how", ["closes", "comes again"])
def test_claim_is_given_back_when_the_connection_ends(how: str, one: Delivering) -> None:
    device = claimed(one)
    if how == "comes again":
        newer = one.login()
    device.close()
    assert one.ledger.steps == [("claim", "c1"), ("return", "c1")]
    assert device.written == []
    assert one.delivery.held == 0
    # It waits for a device that is here: the device registry is to bring it back.
    assert one.fetched == ([] if how == "closes" else [DEVICE])
    if how == "comes again":
        assert newer.written == []


def test_claim_that_is_won_after_the_connection_ended_is_given_back(one: Delivering) -> None:
    gate = one.ledger.close("claim")
    device = one.login()
    one.send("c1")
    device.close()
    gate.callback(None)
    assert one.ledger.steps == [("claim", "c1"), ("return", "c1")]
    assert device.written == []


def test_command_that_cannot_be_expressed_is_malformed(one: Delivering) -> None:
    device = one.login()
    one.send("c1", codec="15")
    one.send("c2")
    assert one.ended == {"c1": "failed/malformed"}
    assert one.ledger.texts["c1"] != ""
    assert device.written == ["c2"]


def test_session_is_asked_for_how_long_the_radio_listens() -> None:
    one = Delivering(Timing(radio_sleeps=120)).begin()
    device = one.login(busy=True)
    one.send("c1")
    assert device.asked == [120]
    device.free()
    assert device.written == ["c1"]
    # It was heard a moment ago; it need not be heard again now that the claim is there.
    assert device.asked == [120, 0]


# Answers that come late.


def test_late_answer_is_not_taken_for_the_answer_to_the_next_command(one: Delivering) -> None:
    device = timed_out(one)
    one.send("c2")
    one.clock.advance(30)
    assert one.backlog() == (1, False)
    assert device.written == ["c1"]
    device.say("the answer to c1")
    assert device.written == ["c1", "c2"]
    device.say("the answer to c2")
    assert one.ended == {"c1": "failed/timeout", "c2": "responded"}
    assert one.ledger.texts["c2"] == "the answer to c2"


def test_late_answer_that_does_not_come_is_expected_no_longer() -> None:
    one = Delivering(Timing(late_answer=60)).begin()
    device = timed_out(one)
    one.send("c2")
    one.clock.advance(59)
    assert device.written == ["c1"]
    one.clock.advance(1.1)
    assert device.written == ["c1", "c2"]
    device.say("an answer")
    assert one.ended["c2"] == "responded"


def test_no_command_is_held_back_if_answers_are_never_late() -> None:
    one = Delivering(Timing(late_answer=0)).begin()
    device = timed_out(one)
    one.send("c2")
    assert device.written == ["c1", "c2"]


def test_late_answer_is_dropped_when_nothing_is_queued(one: Delivering) -> None:
    device = timed_out(one)
    device.say("the answer to c1")
    device.say("and one to nothing")
    one.send("c2")
    assert device.written == ["c1", "c2"]
    device.say("the answer to c2")
    assert one.ledger.texts["c2"] == "the answer to c2"


def test_command_of_another_codec_is_not_held_back(one: Delivering) -> None:
    device = timed_out(one)
    one.send("c2", codec="14")
    one.send("c3")
    assert device.written == ["c1", "c2"]
    device.say("the answer to c1")
    assert one.backlog()[1]
    device.say("the answer to c2", codec="14")
    assert device.written == ["c1", "c2", "c3"]
    device.say("another one, of the wrong codec", codec="14")
    device.say("the answer to c3")
    for command_id in ("c2", "c3"):
        assert one.ended[command_id] == "responded"
        assert one.ledger.texts[command_id] == f"the answer to {command_id}"


def test_command_that_is_held_back_may_expire_or_be_passed_on(one: Delivering) -> None:
    device = timed_out(one)
    one.send("c2", expires_in=40)
    one.send("c3")
    one.clock.advance(40)
    assert one.ended["c2"] == "expired"
    assert one.backlog() == (1, False)
    device.close()
    assert one.ledger.taken("offer") == ["c3"]
    assert device.written == ["c1"]


def test_connection_that_ends_while_a_command_is_recovered_holds_it_back_no_longer() -> None:
    one = Delivering(created=True).begin()
    device = timed_out(one)
    recovered = one.ledger.close("recover")
    one.send("c2")
    newer = one.login()
    device.close()
    recovered.callback(None)
    assert newer.written == ["c2"]
    assert device.written == ["c1"]


@pytest.mark.parametrize("held", ["before", "after"])
def test_no_answer_is_late_on_a_new_connection(held: str, one: Delivering) -> None:
    device = timed_out(one)
    if held == "before":
        one.send("c2")
    newer = one.login()
    device.close()
    if held == "after":
        one.send("c2")
    assert newer.written == ["c2"]
    newer.say("an answer")
    assert one.ended["c2"] == "responded"
    assert device.written == ["c1"]
