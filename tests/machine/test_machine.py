"""A whole machine: installation, failures, upgrade, reboot and removal.

The tests run in this order; each uses the state that the previous one leaves. One fleet sends
from the third test on. At the end, the acknowledged records have to equal those in PostgreSQL.
"""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path

import pytest

from tests.machine.documented import root_commands
from tests.machine.fleet import DEVICES, INTERVAL
from tests.machine.site import Site, build_earlier, build_successor
from tests.system.processes import run
from tests.system.recipes import block
from tests.waiting import wait_for

INGEST = ("tracker-ingest@1", "tracker-ingest@2")
SERVICES = (*INGEST, "tracker-process@1", "tracker-janitor", "tracker-bridge", "tracker-console")

#: Files that the administrator has created for Redis; they do not belong to the package.
REDIS_FILES = {
    *("/etc/redis/tracker.conf", "/etc/redis/tracker-users.acl"),
    "/etc/systemd/system/redis-server.service.d/tracker.conf",
}

#: Number of further records that shows that the site works.
MORE_RECORDS = 4 * DEVICES

#: Seconds after which a hanging service is killed; the default is 60.
WATCHDOG = 15

#: Seconds of the longest permitted pause of a device during a planned restart.
MAX_PAUSE = 30.0


def tracker_processes(site: Site) -> str:
    """Return the processes of the user tracker."""
    return site.machine.run("ps", "-U", "tracker", "-o", "args=", check=False)


def tracker_files(site: Site) -> list[str]:
    """Return the paths on the machine's disk whose names begin with ``tracker``."""
    volatile = {"proc", "sys", "dev", "run", "tmp"}
    found = []
    for folder, names, files in os.walk(site.machine.root):
        if Path(folder) == site.machine.root:
            names[:] = [name for name in names if name not in volatile]
        found += [
            os.path.join(folder, name) for name in (*names, *files) if name.startswith("tracker")
        ]
    return sorted("/" + os.path.relpath(path, site.machine.root) for path in found)


def test_package_is_installed_without_starting_services(site: Site, package: Path) -> None:
    assert tracker_files(site) == []
    site.put(package)
    install = " && ".join(("cd /srv", *root_commands("Debian package")))
    site.machine.run("sh", "-c", install)
    assert tracker_processes(site) == ""
    units = site.machine.run(
        "systemctl", "list-unit-files", "--plain", "--no-legend", "tracker*"
    ).splitlines()
    states = {line.split()[0]: line.split()[1] for line in units}
    assert {f"{re.sub('@.', '@', service)}.service" for service in SERVICES} <= states.keys()
    assert set(states.values()) <= {"disabled", "static"}
    assert "usage" in site.machine.run("tracker-admin", "--help").lower()
    version = site.machine.run("dpkg-query", "--show", "--showformat=${Version}", "tracker-plane")
    site.note(f"installed {version} with {install!r}: no service started or enabled")


def test_documented_setup_starts_all_services(site: Site) -> None:
    for service in ("tracker-ingest@", "tracker-process@", "tracker-janitor"):
        folder = site.machine.root / f"etc/systemd/system/{service}.service.d"
        folder.mkdir(parents=True)
        (folder / "watchdog.conf").write_text(f"[Service]\nWatchdogSec={WATCHDOG}\n")
    setup = root_commands("Set up")
    site.machine.run("sh", "-exc", "\n".join(setup))
    # The bridge has no Directus to connect to.
    for secret in ("directus-token", "webhook-secret"):
        file = site.machine.root / f"etc/tracker/credentials/bridge.{secret}"
        file.write_text(f"{secret * 3}\n")
    site.machine.run("systemctl", "enable", "--now", "tracker-bridge")
    for service in SERVICES:
        assert site.machine.is_active(service)
    site.note(f"set up with the {len(setup)} commands of docs/install.rst: {', '.join(SERVICES)}")


def test_ingest_serves_devices_outside_the_machine(site: Site) -> None:
    site.fleet.wait_for_more(MORE_RECORDS)
    count = site.account()
    site.note(f"{DEVICES} devices outside, a record every {INTERVAL} s each: {count} stored so far")


def test_console_shows_all_devices(site: Site) -> None:
    fetch = "from urllib.request import urlopen as u; print(u('{}').read().decode())".format
    url = "http://127.0.0.1:9120/api/devices?limit=60"
    reply = json.loads(site.machine.run("/opt/tracker/bin/python", "-c", fetch(url)))
    devices = {one["device_id"]: one for one in reply["devices"]}
    assert devices.keys() <= {key[0] for key in site.stored()}
    assert len(devices) == DEVICES
    assert all(one["latitude"] is not None for one in devices.values())


@pytest.mark.parametrize("service", SERVICES)
def test_killed_service_is_restarted(site: Site, service: str) -> None:
    before = site.restarts(service)
    site.fleet.pauses.begin()
    site.machine.run("systemctl", "kill", "--signal=KILL", service)
    site.wait_for_restart(service, before)
    site.fleet.wait_for_more(MORE_RECORDS)
    count = site.account()
    longest = site.fleet.pauses.longest()
    site.note(f"kill -9 {service}: {count} acknowledged and stored, longest pause {longest:.1f} s")


def test_killed_redis_is_restarted(site: Site) -> None:
    before = site.restarts("redis-server")
    site.fleet.pauses.begin()
    site.machine.run("systemctl", "kill", "--signal=KILL", "redis-server")
    site.wait_for_restart("redis-server", before)
    site.fleet.wait_for_more(MORE_RECORDS)
    count = site.account()
    longest = site.fleet.pauses.longest()
    site.note(
        f"kill -9 redis-server: {count} acknowledged and stored, longest pause {longest:.1f} s"
    )


def test_hung_services_are_restarted_by_the_watchdog(site: Site) -> None:
    hung = ("tracker-ingest@1", "tracker-process@1", "tracker-janitor")
    before = {service: site.restarts(service) for service in hung}
    site.fleet.pauses.begin()
    for service in hung:
        site.machine.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", service)
    for service in hung:
        site.wait_for_restart(service, before[service], timeout=WATCHDOG + 60)
        journal = site.machine.run("journalctl", "--boot", "--unit", service)
        assert "Watchdog timeout" in journal
    site.fleet.wait_for_more(MORE_RECORDS)
    longest = site.fleet.pauses.longest()
    site.note(
        f"SIGSTOP to {', '.join(hung)}: the watchdog restarted each, {site.account()} stored,"
        f" longest pause {longest:.1f} s"
    )


def test_full_disk_stops_only_acknowledgements(site: Site) -> None:
    filler = f"{site.machine.REDIS}/filler"
    restarts = site.restarts("redis-server")
    site.machine.run("sh", "-c", f"cat /dev/zero > {filler}", check=False)
    site.fleet.wait_until_silent()
    silent = len(site.fleet.acknowledged())
    # More restarts than systemd permits without the documented settings.
    wait_for(lambda: site.restarts("redis-server") > restarts + 6, "Redis restarts", timeout=60)
    site.fleet.wait_until_silent()
    # At a start, Redis truncates its log, which may leave space for a record.
    assert len(site.fleet.acknowledged()) - silent < DEVICES
    ingest = {service: site.restarts(service) for service in INGEST}
    site.machine.run("rm", filler)
    site.fleet.wait_for_more(MORE_RECORDS)
    assert ingest == {service: site.restarts(service) for service in INGEST}
    site.note(
        f"disk of Redis full: no acknowledgements after {silent}; Redis restarted"
        f" {site.restarts('redis-server') - restarts} times, ingest never;"
        f" freed: {site.account()} stored"
    )


def test_upgrade_under_load_restarts_all_services(
    site: Site, package: Path, tmp_path: Path
) -> None:
    settings = site.machine.root / "etc/tracker/ingest.env"
    settings.write_text(f"{settings.read_text()}# Edited by the administrator.\n")
    kept = {path: path.read_text() for path in (site.machine.root / "etc/tracker").glob("*.env")}
    successor = site.put(build_successor(package, tmp_path))
    old = {service: site.machine.show(service, "MainPID") for service in SERVICES}
    site.fleet.pauses.begin()
    output = site.machine.run("apt-get", "install", successor)
    site.fleet.wait_for_more(MORE_RECORDS)
    longest = site.fleet.pauses.longest()
    for service in SERVICES:
        assert site.machine.is_active(service)
        assert site.machine.show(service, "MainPID") != old[service]
    assert kept == {path: path.read_text() for path in kept}, output
    delivered = site.machine.root / "usr/share/tracker/etc/ingest.env"
    assert "Delivered with the next version" in delivered.read_text()
    for service in INGEST:
        assert site.heartbeat(service)["version"].endswith("+1")
    assert "Inst tracker" not in site.machine.run("apt-get", "--simulate", "dist-upgrade")
    assert longest < MAX_PAUSE
    site.note(
        f"upgrade under load: all {len(SERVICES)} services run the new version, settings kept,"
        f" {site.account()} stored, longest pause of a device {longest:.1f} s"
    )


def test_devices_are_served_after_a_short_pause_when_all_instances_restart(site: Site) -> None:
    site.fleet.pauses.begin()
    site.machine.run("systemctl", "restart", "tracker-ingest@*")
    site.fleet.wait_for_more(MORE_RECORDS)
    longest = site.fleet.pauses.longest()
    assert longest < MAX_PAUSE
    site.note(
        f"systemctl restart 'tracker-ingest@*': {site.account()} stored,"
        f" longest pause of a device {longest:.1f} s"
    )


def test_tracker_restart_stops_at_a_service_that_does_not_become_ready(site: Site) -> None:
    settings = site.machine.root / "etc/tracker/process-1.env"
    settings.write_text("TRACKER_PROCESS_OPTIONS=--no-such-option\n")
    running = {service: site.machine.show(service, "MainPID") for service in INGEST}
    assert not site.machine.succeeds("tracker-restart")
    assert running == {service: site.machine.show(service, "MainPID") for service in INGEST}
    settings.unlink()
    site.machine.run("tracker-restart")
    for service in SERVICES:
        assert site.machine.is_active(service)
    site.fleet.wait_for_more(MORE_RECORDS)
    site.note(
        "tracker-restart with a processor that cannot start: ingest was not restarted;"
        f" after the fix: {site.account()} stored"
    )


def test_all_services_start_after_a_reboot(site: Site) -> None:
    site.fleet.pauses.begin()
    site.machine.reboot()
    for service in SERVICES:
        wait_for(partial(site.machine.is_active, service), f"{service} is active", timeout=60)
    site.fleet.wait_for_more(MORE_RECORDS)
    longest = site.fleet.pauses.longest()
    site.note(
        f"reboot under load: all services started, {site.account()} stored,"
        f" longest pause of a device {longest:.1f} s"
    )


def test_acknowledged_records_equal_stored_records(site: Site) -> None:
    summary = site.fleet.park()
    acknowledged = site.fleet.acknowledged()
    site.account()
    stored = site.stored()
    assert len(stored) == len(set(stored)), "stored twice"
    assert not set(acknowledged) - set(stored), "lost"
    assert not set(stored) - set(acknowledged), "stored, but never acknowledged"
    assert summary.endswith(" 0 unacknowledged")
    site.note(f"at the end {len(acknowledged)} acknowledged = {len(stored)} stored ({summary})")


def test_recipe_restores_a_database_from_a_backup(site: Site) -> None:
    site.follow("operations", "backup-database")
    site.follow("operations", "restore-database")
    site.machine.run("systemctl", "start", "tracker-process@1")
    stored = sorted(site.stored())
    assert sorted(site.stored("tracker_new")) == stored
    site.machine.run("rm", "/var/backups/tracker.dump")
    site.note(f"backup and restoration of PostgreSQL, by docs/operations.rst: {len(stored)} rows")


def test_recipe_serves_devices_over_tls(site: Site) -> None:
    with (site.machine.root / "etc/hosts").open("a") as hosts:
        hosts.write("127.0.0.1 tracker.example.org\n")
    before = len(site.stored())
    site.follow("tls", "tls-devices-make")
    site.settings("ingest.env", block("tls", "tls-devices-settings"))
    site.machine.run("tracker-restart")
    assert "Verified peername: tracker.example.org" in site.follow("tls", "tls-devices-look")
    shown = site.follow("tls", "tls-devices-simulate")
    assert " 1 of 1 device connected, " in shown
    assert shown.rstrip().endswith(" 0 unacknowledged")
    wait_for(lambda: len(site.stored()) > before, "the record over TLS is stored")
    site.note(f"devices over TLS, by docs/tls.rst: {shown.splitlines()[-1]}")


def test_recipe_serves_the_control_port_over_tls(site: Site) -> None:
    site.follow("tls", "tls-control-make")
    site.settings("control.permissions", block("tls", "tls-control-permissions"))
    site.settings("ingest-1.env", block("tls", "tls-control-settings"))
    site.follow("tls", "tls-control-restart")
    site.settings("admin.conf", block("tls", "tls-control-client"))
    assert re.search(r"^permission +operate$", site.follow("tls", "tls-control-look"), re.MULTILINE)
    # From another machine.
    files = site.machine.root / "etc/tracker/control"
    address = f"ssl:{site.machine.address}:5091:name=tracker.example.org:caCert={files}/ca.pem"
    bob = f"{address}:privateKey={files}/bob.key:certKey={files}/bob.pem"
    assert "certificate bob" in run("tracker-admin", "--control", bob, "info").stdout
    denied = run("tracker-admin", "--control", bob, "drop", "356307042441013")
    assert (denied.returncode, denied.stderr) == (
        4,
        'tracker-admin: Not permitted: this command requires the permission "operate".\n',
    )
    site.note(
        "control port over TLS, by docs/tls.rst: alice operates, bob reads, from another host too"
    )


def test_earlier_package_is_replaced_while_its_services_run(
    site: Site, package: Path, tmp_path: Path
) -> None:
    root = site.machine.root
    site.machine.run("apt-get", "remove", "--yes", "tracker-plane")
    site.machine.run("apt-get", "install", site.put(build_earlier(package, tmp_path)))
    site.machine.run("systemctl", "start", "tracker.target")
    kept = {path: path.read_bytes() for path in (root / "etc/tracker").rglob("*.*")}
    enabled = site.machine.run("systemctl", "list-unit-files", "--state=enabled", "tracker*")
    old = {service: site.machine.show(service, "MainPID") for service in SERVICES}
    assert "0" not in old.values()
    output = site.machine.run("sh", "-c", f"apt-get install {site.put(package)} 2>&1")
    assert "run apt purge tracker to remove its entry" in output
    assert list(root.glob("opt/tracker/lib/python3.*/site-packages/tracker/gone.py")) == []
    new = {service: site.machine.show(service, "MainPID") for service in SERVICES}
    assert all(new[service] not in ("0", old[service]) for service in SERVICES)
    site.machine.run("apt-get", "purge", "--yes", "tracker")
    assert not site.machine.succeeds("dpkg-query", "--status", "tracker")
    assert new == {service: site.machine.show(service, "MainPID") for service in SERVICES}
    assert site.machine.run("dpkg", "--verify", "tracker-plane") == ""
    assert kept == {path: path.read_bytes() for path in kept}
    listed = ("systemctl", "list-unit-files", "--state=enabled", "tracker*")
    assert enabled == site.machine.run(*listed)
    site.note("replaced the earlier package tracker: settings and units kept, services restarted")


def test_logs_contain_no_traceback(site: Site) -> None:
    journal = site.machine.run("journalctl", "--unit", "tracker-*")
    assert "ready" in journal
    assert "Traceback" not in journal
    assert "plugin cache" not in journal


def test_removal_keeps_settings_and_purge_removes_all(site: Site) -> None:
    site.machine.run("apt-get", "remove", "--yes", "tracker-plane")
    assert tracker_processes(site) == ""
    assert (site.machine.root / "etc/tracker/ingest.env").exists()
    assert not (site.machine.root / "opt/tracker").exists()
    site.machine.run("apt-get", "purge", "--yes", "tracker-plane")
    site.machine.run("sh", "-c", "rm -r /srv/* /etc/systemd/system/tracker-*.service.d")
    assert set(tracker_files(site)) == REDIS_FILES
    assert site.machine.run("systemctl", "list-units", "--all", "--no-legend", "tracker*") == ""
    site.note("removed and purged: only its user is left")
