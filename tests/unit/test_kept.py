"""Memory for what an instance keeps although its connection may close."""

from __future__ import annotations

from tracker.kept import KeptMemory


def test_memory_is_used_up_at_its_limit() -> None:
    kept = KeptMemory(100)
    kept.begin(99)
    assert not kept.used_up
    kept.begin(1)
    assert kept.used_up
    kept.end(1)
    assert not kept.used_up


def test_unread_frames_have_a_part_of_their_own() -> None:
    kept = KeptMemory(1600)
    kept.begin(1600)
    kept.unread = 60
    assert not kept.has_room(1541, positions=True)
    assert kept.has_room(1540, positions=True)
    assert not kept.has_room(41, positions=False)
    assert kept.has_room(40, positions=False)


def test_callers_go_on_in_their_order_until_the_memory_is_used_up_again() -> None:
    kept = KeptMemory(2)
    kept.begin(3)
    resumed: list[str] = []

    def waiter(name: str) -> None:
        resumed.append(name)
        kept.begin(1)

    first, second = (lambda: waiter("first")), (lambda: waiter("second"))
    kept.when_free(first)
    kept.when_free(lambda: waiter("forgotten"))
    kept.when_free(second)
    kept.forget(list(kept._waiting)[1])
    kept.end(1)
    assert resumed == []
    kept.end(1)
    assert resumed == ["first"]
    kept.end(1)
    assert resumed == ["first", "second"]
    kept.end(2)
    assert resumed == ["first", "second"]


def test_caller_that_gives_memory_back_at_once_does_not_overtake() -> None:
    kept = KeptMemory(1)
    kept.begin(1)
    resumed: list[int] = []

    def again() -> None:
        resumed.append(1)
        kept.begin(1)
        kept.end(1)

    kept.when_free(again)
    kept.when_free(lambda: resumed.append(2))
    kept.end(1)
    assert resumed == [1, 2]
