"""Commands from rows in a real Directus to devices, and their answers back."""

from __future__ import annotations

import time
from typing import Any

from tests.directus.conftest import Measured
from tests.directus.prepared import Prepared
from tests.directus.site import DEVICE, POLL, AnsweringDevice, Site, read_frame
from tests.system.commands import responses
from tests.system.test_commands import answer, online, read_command
from tests.unit.bridge.double import BRIDGE_TOKEN
from tests.waiting import wait_for
from tracker.bridge.schema import BRIDGE_ROLE
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, RESPONSE, Message

#: ``getinfo`` in Codec 12, from Teltonika's wiki ("Codec", "Codec 12", "GPRS commands").
GETINFO = bytes.fromhex("000000000000000f0c010500000007676574696e666f0100004312")
#: An answer with characters that need escaping.
ANSWER = "INI:2026/1/1 RTC:1\r\n\tCelësi: Ключ \\ \"'<&>%s {{x}} \u2028 "


def test_command_is_found_by_polling_and_answered(site: Site, measured: Measured) -> None:
    device = online(site.ingest)
    began = time.monotonic()
    key = site.create("getinfo")
    frame = read_frame(device)
    assert frame == GETINFO
    wait_for(lambda: site.status(key) == "delivered", "delivered")
    answer(device, ANSWER, Message(MESSAGE_CODECS[0x0C], RESPONSE, b""))
    wait_for(lambda: site.status(key) == "responded", "responded")
    measured(f"from the row's creation to its final status: {time.monotonic() - began:.2f} s")
    row = site.row(key)
    assert row["response"] == ANSWER
    assert row["instance"] == "one"
    assert row["reason"] is None
    assert row["date_created"] <= row["routed_at"] <= row["delivered_at"] <= row["finished_at"]


def test_webhook_announces_a_command_at_once(webhook_site: Site, measured: Measured) -> None:
    device = online(webhook_site.ingest)
    began = time.monotonic()
    key = webhook_site.create("setdigout 1", codec="14")
    command = read_command(device)
    assert time.monotonic() - began < POLL / 2, "the row was found by polling"
    assert (command.codec.name, command.text, command.imei) == ("14", "setdigout 1", DEVICE)
    answer(device, "DOUT1:1", command)
    wait_for(lambda: webhook_site.status(key) == "responded", "responded")
    measured(f"from the row's creation to its final status: {time.monotonic() - began:.2f} s")


def test_bytes_of_a_row_reach_the_device(site: Site) -> None:
    device = online(site.ingest)
    key = site.create(None, hex="0A:0B:00 FF")
    command = read_command(device)
    assert command.content == bytes.fromhex("0A0B00FF")
    answer(device, "OK", command)
    wait_for(lambda: site.status(key) == "responded", "responded")
    both = site.create("getinfo", hex="00")
    wait_for(lambda: site.row(both)["finished_at"], "it has a final status")
    row = site.row(both)
    assert (row["status"], row["reason"]) == ("failed", "malformed")
    assert row["response"].startswith("text and hex: ")


def test_row_says_that_the_device_does_not_know_the_command(site: Site) -> None:
    device = online(site.ingest)
    key = site.create("getinfos")
    answer(device, "Unknown command or invalid format", read_command(device))
    wait_for(lambda: site.status(key) == "responded", "responded")
    assert site.row(key)["reason"] == "unknown_command"
    assert {one["sender"] for one in responses(site.redis)[key]} == {"Directus"}


def test_invalid_command_is_explained_in_its_row(site: Site) -> None:
    keys = [
        site.create("x" * 5000),
        site.create(codec="13"),
        site.create(expires_at="2020-01-01T00:00:00Z"),
    ]
    device = online(site.ingest)
    wait_for(lambda: all(site.row(key)["finished_at"] for key in keys), "all have a final status")
    long, codec, late = map(site.row, keys)
    assert (long["status"], long["reason"]) == ("failed", "malformed")
    assert "4096 bytes" in long["response"]
    assert (codec["status"], codec["reason"]) == ("failed", "malformed")
    assert "13" in codec["response"]
    assert late["status"] == "expired"
    device.socket.close()


def test_devices_are_copied_from_the_collection(site: Site) -> None:
    ask = site.directus.data
    ask("POST", "/items/devices", {"imei": DEVICE, "model": "FMB120", "vendor": "teltonika"})
    ask("POST", "/items/devices", {"imei": "356307042441021", "enabled": False})
    site.bridge.kill()
    site.bridge.start()
    allowed = site.redis.client.smembers("devices:allowed")
    assert set(allowed) == {DEVICE.encode()}
    assert site.redis.client.hgetall("devices:models") == {DEVICE.encode(): b"FMB120"}
    assert site.redis.client.hgetall("devices:vendors") == {DEVICE.encode(): b"teltonika"}


def test_hundreds_of_commands_survive_a_kill_of_every_process(
    webhook_site: Site, directus: Prepared
) -> None:
    device = AnsweringDevice(webhook_site)
    try:
        texts = [f"setparam 1:{number}" for number in range(300)]
        rows = webhook_site.ask(
            "POST", "/items/commands", [{"imei": DEVICE, "text": text} for text in texts]
        )
        keys = [row["id"] for row in rows]

        def ended() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = webhook_site.ask(
                "GET", "/items/commands?limit=-1&filter[finished_at][_nnull]=true"
            )
            return found

        wait_for(lambda: len(device.executed) > 20, "some are executed")
        webhook_site.bridge.kill()
        webhook_site.bridge.start(ready=False)
        wait_for(lambda: len(ended()) > 40, "some have ended", timeout=60)
        webhook_site.ingest.daemon.kill()
        webhook_site.ingest.daemon.start()
        wait_for(lambda: len(ended()) > 80, "more have ended", timeout=60)
        webhook_site.redis.kill()
        webhook_site.redis.start()
        wait_for(lambda: len(ended()) > 120, "more have ended", timeout=60)
        directus.server.kill()
        directus.server.start()
        wait_for(lambda: len(ended()) == len(keys), "all have ended", timeout=120)
        assert len(device.executed) == len(set(device.executed))
        for row in ended():
            if row["status"] == "responded":
                assert row["response"] == f"{DEVICE} did {row['text']}"
                assert row["text"] in device.executed
            else:
                assert row["reason"] in ("in_doubt", "disconnected"), row
        assert sum(row["status"] == "responded" for row in ended()) > 250
    finally:
        device.end()


def test_response_is_written_after_a_revoked_token_is_restored(
    site: Site, directus: Prepared
) -> None:
    (user,) = directus.server.data("GET", f"/users?filter[role][_eq]={BRIDGE_ROLE}&fields=id")
    device = online(site.ingest)
    key = site.create("getinfo")
    command = read_command(device)
    directus.server.data("PATCH", f"/users/{user['id']}", {"token": None})
    answer(device, "INI:1", command)
    wait_for(lambda: site.bridge.readyz()[0] == 503, "the failure is reported")
    assert "Directus" in str(site.bridge.readyz()[1]["reasons"])
    directus.server.data("PATCH", f"/users/{user['id']}", {"token": BRIDGE_TOKEN})
    wait_for(lambda: site.status(key) == "responded", "responded", timeout=60)
    wait_for(lambda: site.bridge.readyz()[0] == 200, "ready again", timeout=60)


def test_response_of_a_deleted_row_is_acknowledged(site: Site) -> None:
    device = online(site.ingest)
    key = site.create("getinfo")
    command = read_command(device)
    site.directus.data("DELETE", f"/items/commands/{key}")
    answer(device, "INI:1", command)
    wait_for(lambda: f"command {key}: status responded not written" in site.bridge.text, "logged")
    # The deletion of a row is not a failure, even while Directus changes the row.
    assert site.bridge.readyz()[0] == 200
    assert "not ready" not in site.bridge.text
    wait_for(
        lambda: site.redis.client.xinfo_groups("commands:responses")[0]["pending"] == 0,
        "acknowledged",
    )
