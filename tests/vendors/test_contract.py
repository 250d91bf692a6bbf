"""The contract that each installed vendor keeps, whatever its protocol.

Each test runs once for each vendor, with the samples of :mod:`tests.vendors.samples`, over the
connection that all vendors share, without sockets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve, fields, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.talk import Talk
from tests.vendors.samples import NoSamples, Samples, load_samples
from tracker.command import MAX_RESPONSE_BYTES
from tracker.interfaces import Admission, IVendor, NotAppended, Traffic
from tracker.limits import Limits
from tracker.position import Entry, Position, digest
from tracker.settings import options_of
from tracker.vendors.connection import ConnectionFactory
from tracker.vendors.installed import checked_device_id, installed_vendors

VENDORS = installed_vendors()
NAME = re.compile(r"[a-z][a-z0-9]{0,31}")
DEVICE_ID = re.compile(r"[0-9A-Z]{1,32}")


def encodings(vendor: IVendor) -> list[str]:
    """Return the name of a vendor, and with a hyphen those of its other encodings."""
    try:
        names = list(load_samples(vendor))
    except NoSamples:
        names = [""]  # for which each test fails
    return [f"{vendor.name}-{name}".removesuffix("-") for name in names]


def each(vendors: Iterable[IVendor]) -> pytest.MarkDecorator:
    """Run a test for each encoding of some vendors."""
    return pytest.mark.parametrize("name", [name for one in vendors for name in encodings(one)])


EVERY_VENDOR = each(VENDORS.values())
COMMANDING = each(one for one in VENDORS.values() if one.command_codecs)
DATAGRAMS = each(one for one in VENDORS.values() if "udp" in one.transports)


@frozen
class Subject:
    """A vendor with its samples."""

    vendor: IVendor
    samples: Samples

    def build(self, gateway: FakeGateway, limits: Limits, clock: Clock) -> Any:
        """Build the factory of a port."""
        return self.vendor.buildFactory(gateway, limits, clock, self._settings())

    def build_port(self, gateway: FakeGateway, clock: Clock) -> Any:
        """Build the protocol of a UDP port."""
        return self.vendor.buildDatagramProtocol(gateway, Limits(), clock, self._settings())

    def _settings(self) -> Any:
        made = self.vendor.settings
        return None if made is None else made(**self.samples.settings)

    def talk(self, **options: Any) -> Talk:
        """Return a connection of a device that has not sent anything."""
        return Talk(self.build, **options)

    def online(self, **options: Any) -> Talk:
        """Return a connection of a device that has logged in, and has heard the reply."""
        talk = self.talk(**options)
        if self.samples.login:
            talk.send(self.samples.login)
            talk.received()
        assert not talk.closed
        return talk


def subject(name: str) -> Subject:
    vendor_name, _, encoding = name.partition("-")
    vendor = VENDORS[vendor_name]
    try:
        return Subject(vendor, load_samples(vendor)[encoding])
    except NoSamples as error:
        pytest.fail(str(error), pytrace=False)


def published(talk: Talk) -> list[Entry]:
    return [entry for entries, _ in talk.gateway.published for entry in entries]


def confirm_all(talk: Talk) -> None:
    """Confirm all entries that are not confirmed, also those that follow."""
    while waiting := [one for _, one in talk.gateway.published if not one.called]:
        for one in waiting:
            one.callback(None)
        talk.clock.advance(0)


def refuse_all(talk: Talk) -> None:
    for _, one in talk.gateway.published:
        if not one.called:
            one.errback(NotAppended("the process stops"))
    talk.clock.advance(0)


@pytest.mark.parametrize("name", VENDORS)
def test_vendor_declares_what_its_users_rely_on(name: str) -> None:
    vendor = VENDORS[name]
    assert verifyObject(IVendor, vendor)
    assert NAME.fullmatch(name)
    assert vendor.codecs
    assert all(codec and codec.isprintable() for codec in vendor.codecs)
    assert vendor.transports
    assert vendor.transports <= {"tcp", "udp"}
    assert len(set(vendor.command_codecs)) == len(vendor.command_codecs)
    assert vendor.device_id_form.isprintable()


@pytest.mark.parametrize("name", VENDORS)
def test_settings_are_options_with_valid_defaults(name: str) -> None:
    cls = VENDORS[name].settings
    if cls is None:
        return
    made = cls()
    for attribute, (option, shown, text) in zip(fields(cls), options_of(cls), strict=True):
        assert re.fullmatch(r"[a-z][a-z0-9-]*", option)
        assert text.endswith(".")
        assert len(text.splitlines()) == 1
        if shown is not None:
            assert attribute.metadata["read"](str(shown)) == getattr(made, attribute.name)
    assert evolve(made) == made


@EVERY_VENDOR
def test_device_id_is_normalised_once(name: str) -> None:
    tested = subject(name)
    vendor, samples = tested.vendor, tested.samples
    for text in (samples.device_id, *samples.same_ids):
        assert vendor.device_id(text) == samples.device_id
        assert checked_device_id(text) == samples.device_id
        assert re.fullmatch(vendor.device_id_pattern, text)
    assert DEVICE_ID.fullmatch(samples.device_id)


@EVERY_VENDOR
def test_what_is_no_device_id_is_refused_in_one_line(name: str) -> None:
    tested = subject(name)
    assert tested.samples.wrong_ids
    for text in tested.samples.wrong_ids:
        assert not re.fullmatch(tested.vendor.device_id_pattern, text)
        with pytest.raises(ValueError, match=re.escape(tested.vendor.device_id_form)) as caught:
            tested.vendor.device_id(text)
        assert len(str(caught.value).splitlines()) == 1


@EVERY_VENDOR
def test_entries_are_those_of_the_device(name: str) -> None:
    tested = subject(name)
    talk = tested.online()
    talk.send(tested.samples.record)
    entries = published(talk)
    assert len(entries) == tested.samples.entries
    for entry in entries:
        position = Position.from_payload(entry.payload)
        assert entry.device_id == position.device_id == tested.samples.device_id
        assert entry.ts == position.timestamp
        assert entry.codec in tested.vendor.codecs
    assert talk.protocol.device_id == tested.samples.device_id


@EVERY_VENDOR
def test_ack_of_a_record_waits_for_the_append(name: str) -> None:
    tested = subject(name)
    talk = tested.online()
    talk.send(tested.samples.record)
    assert talk.received() == b""
    talk.confirm()
    talk.clock.advance(0)
    assert talk.received() == tested.samples.ack


@EVERY_VENDOR
def test_record_that_is_not_appended_gets_no_ack(name: str) -> None:
    tested = subject(name)
    talk = tested.online()
    talk.send(tested.samples.record)
    refuse_all(talk)
    talk.send(tested.samples.fence)
    confirm_all(talk)
    assert talk.received() == b""


@EVERY_VENDOR
def test_entry_that_is_never_repeated_outlives_its_connection(name: str) -> None:
    tested = subject(name)
    talk = tested.online()
    talk.send(tested.samples.never_repeated)
    ((entries, kept),) = talk.gateway.published
    talk.lose()
    assert not kept.called
    assert talk.gateway.cancelled == 0
    assert len(entries) == 1
    kept.callback(None)
    assert not talk.events_of("lost")


@EVERY_VENDOR
def test_repeated_record_has_the_same_digest(name: str) -> None:
    tested = subject(name)
    talk = tested.online()
    talk.send(tested.samples.record)
    confirm_all(talk)
    talk.send(tested.samples.repetition)
    confirm_all(talk)
    entries = published(talk)
    first, again = entries[: tested.samples.entries], entries[tested.samples.entries :]
    assert [(one.ts, digest(one.payload)) for one in first] == [
        (one.ts, digest(one.payload)) for one in again
    ]
    assert len({digest(one.payload) for one in first}) == tested.samples.entries


def conversation(tested: Subject, pieces: Iterable[bytes]) -> tuple[list[Entry], bytes]:
    """Return the entries, and all that the device hears, if it sends these pieces."""
    talk = tested.talk()
    talk.gateway.confirms_immediately = True
    for piece in pieces:
        talk.send(piece)
        talk.clock.advance(0)
    assert not talk.closed
    return published(talk), talk.received()


@EVERY_VENDOR
def test_segments_do_not_change_what_is_stored_and_heard(name: str) -> None:
    tested = subject(name)

    @settings(max_examples=50, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        samples = tested.samples
        stream = b"".join(
            (
                samples.login,
                samples.record,
                samples.fence,
                samples.never_repeated,
                samples.repetition,
            )
        )
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
        bounds = [0, *cuts, len(stream)]
        pieces = [stream[start:end] for start, end in pairwise(bounds)]
        assert conversation(tested, filter(None, pieces)) == conversation(tested, [stream])

    check()


@EVERY_VENDOR
def test_single_bytes_give_the_same_as_one_segment(name: str) -> None:
    tested = subject(name)
    stream = tested.samples.login + tested.samples.record
    single = (bytes((byte,)) for byte in stream)
    assert conversation(tested, single) == conversation(tested, [stream])


class Pair:
    """Two connections of one port."""

    def __init__(self, tested: Subject) -> None:
        gateway = FakeGateway()
        clock = Clock()
        factory: ConnectionFactory = tested.build(gateway, Limits(), clock)
        self.one, self.other = (
            Talk(lambda gateway, limits, clock: factory, gateway=gateway) for _ in range(2)
        )
        for talk in (self.one, self.other):
            talk.clock = clock
            if tested.samples.login:
                talk.send(tested.samples.login)
                talk.received()


@EVERY_VENDOR
def test_bad_byte_harms_only_its_own_connection(name: str) -> None:
    tested = subject(name)
    pair = Pair(tested)
    pair.one.send(tested.samples.bad)
    assert pair.one.events_of("rejected")
    assert pair.one.gateway.published == []
    assert pair.one.received() == b""
    assert not pair.other.closed
    pair.other.send(tested.samples.record)
    assert len(published(pair.other)) == tested.samples.entries
    confirm_all(pair.other)
    assert pair.other.received() == tested.samples.ack


@EVERY_VENDOR
def test_any_bytes_leave_the_other_connections_alone(name: str) -> None:
    tested = subject(name)

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        pair = Pair(tested)
        samples = tested.samples
        start = data.draw(
            st.sampled_from(
                (b"", samples.record, samples.never_repeated, samples.fence, samples.bad)
            )
        )
        cut = data.draw(st.integers(0, len(start)))
        pair.one.send(start[:cut] + data.draw(st.binary(max_size=200)) + start[cut:])
        confirm_all(pair.one)
        before = len(published(pair.other))
        pair.other.send(samples.record)
        assert not pair.other.closed
        assert len(published(pair.other)) == before + samples.entries
        assert {entry.codec for entry in published(pair.one)} <= tested.vendor.codecs

    check()


@pytest.mark.parametrize("appended", [True, False])
@EVERY_VENDOR
def test_fence_waits_for_all_earlier_records(name: str, appended: bool) -> None:
    tested = subject(name)
    samples = tested.samples
    talk = tested.online()
    talk.send(samples.record + samples.never_repeated + samples.fence)
    heard = talk.received()
    assert heard == b""
    if appended:
        confirm_all(talk)
        heard = talk.received()
        assert heard.endswith(samples.fence_reply)
        assert heard.startswith(samples.ack)
    else:
        refuse_all(talk)
        assert talk.received() == b""


@EVERY_VENDOR
def test_device_that_is_not_served_hears_no_ack(name: str) -> None:
    tested = subject(name)
    gateway = FakeGateway()
    gateway.admissions[tested.samples.device_id] = Admission.REFUSED
    talk = tested.talk(gateway=gateway)
    talk.send(tested.samples.login)
    talk.received()
    if not talk.closed:
        talk.send(tested.samples.record)
    assert gateway.published == []
    assert talk.received() == b""


@COMMANDING
def test_answer_of_the_device_is_that_to_the_command(name: str) -> None:
    tested = subject(name)
    samples = tested.samples
    assert samples.command, f"samples_{name}.py: command is empty, but the vendor has commands"
    assert samples.answer is not None
    talk = tested.online()
    talk.send(samples.record)
    confirm_all(talk)
    talk.received()
    frame = talk.protocol.command_frame(samples.device_id, samples.command, "")
    assert frame.codec == tested.vendor.command_codecs[0]
    written: list[None] = []
    talk.protocol.when_free().addCallback(written.append)
    talk.clock.advance(60)
    assert written
    talk.protocol.write_command(frame.data)
    assert talk.received() == frame.data
    talk.send(samples.answer(frame.data))
    ((_, answer),) = talk.events_of("answered")
    assert (answer.codec, answer.token) == (frame.codec, frame.token)
    assert answer.text.isprintable()
    assert len(answer.text.encode()) <= MAX_RESPONSE_BYTES


@COMMANDING
def test_unknown_codec_of_a_command_is_refused_in_one_line(name: str) -> None:
    tested = subject(name)
    talk = tested.online()
    talk.send(tested.samples.record)
    with pytest.raises(ValueError, match="nosuch") as caught:
        talk.protocol.command_frame(tested.samples.device_id, tested.samples.command, "nosuch")
    assert len(str(caught.value).splitlines()) == 1


@DATAGRAMS
def test_ack_of_a_datagram_waits_for_the_append(name: str) -> None:
    tested = subject(name)
    samples = tested.samples
    assert samples.datagram, f"samples_{name}.py: datagram is empty, but the vendor uses udp"
    gateway, clock, transport = FakeGateway(), Clock(), FakeDatagramTransport()
    port = tested.build_port(gateway, clock)
    port.makeConnection(transport)
    address = ("192.0.2.7", 40_001)
    port.datagramReceived(samples.bad, address)
    port.datagramReceived(samples.datagram, address)
    ((entries, confirmation),) = gateway.published
    assert {entry.device_id for entry in entries} == {samples.device_id}
    assert {entry.codec for entry in entries} <= tested.vendor.codecs
    assert transport.written == []
    confirmation.callback(None)
    clock.advance(0)
    assert transport.written == [(samples.datagram_ack, address)]


@EVERY_VENDOR
def test_any_traffic_can_be_described(name: str) -> None:
    tested = subject(name)

    @settings(max_examples=200, deadline=None)
    @given(data=st.data(), kind=st.sampled_from(Traffic))
    def check(data: st.DataObject, kind: Traffic) -> None:
        samples = tested.samples
        known = (samples.login, samples.record, samples.never_repeated, samples.fence, samples.ack)
        start = bytearray(data.draw(st.sampled_from(known)))
        for offset, byte in data.draw(
            st.dictionaries(st.integers(0, 200), st.integers(0, 255), max_size=3)
        ).items():
            if offset < len(start):
                start[offset] = byte
        content = bytes(start[: data.draw(st.integers(0, len(start)))])
        content += data.draw(st.binary(max_size=40))
        described = tested.vendor.describe(content, kind)
        assert described
        json.dumps(described, allow_nan=False)

    check()


def test_vendor_without_samples_is_told_what_to_write() -> None:
    class NoSuch:
        name = "nosuch"

    with pytest.raises(NoSamples, match=r"write samples_nosuch\.py with SAMPLES = Samples"):
        load_samples(NoSuch())  # type: ignore[arg-type]
