"""``twistd tracker bridge``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry

from tracker import config
from tracker.bridge.rest import checked_token, checked_url
from tracker.bridge.service import BridgePace, Directus, Hook, bridge_role
from tracker.config import ConfigError
from tracker.control.pool import Credentials
from tracker.observe.health import Health
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.runtime.lifecycle import Abort, Role
from tracker.settings import options_of
from tracker.tap.role import REDIS, RoleOptions, loopback_endpoint, reachable


class BridgeOptions(RoleOptions):
    """Commands from Directus, and what becomes of them back to it."""

    longdesc = (
        "Sends the commands of a Directus to devices, tells it what becomes of them, and keeps "
        "the list of its devices up to date in Redis."
    )
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        ("directus", None, None, "Where Directus is, as http://127.0.0.1:8055. [DIRECTUS_URL]"),
        ("token-file", None, None, "A file with the static token of the bridge's user there. "
         "[DIRECTUS_TOKEN_FILE, or the token itself in DIRECTUS_TOKEN]"),
        ("webhook", None, config.DEFAULT_WEBHOOK, "Where Directus' Flows post to (loopback unless "
         "it names an interface); or none."),
        ("secret-file", None, None, "A file with the secret that they send along. "
         "[TRACKER_WEBHOOK_SECRET_FILE, or the secret itself in TRACKER_WEBHOOK_SECRET]"),
        ("consumer", None, None, "This bridge's name in the group directus, the same after a "
         "restart. [CONSUMER_NAME, else the host's name and -1]"),
        ("control-key", None, None, "The bridge's private key for control ports with TLS."),
        ("control-cert", None, None, "Its certificate."),
        ("control-ca", None, None, "The authority of the instances' certificates."),
        *((name, None, default, text) for name, default, text in options_of(BridgePace)),
    ]  # fmt: skip

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        url = self["directus"] or os.environ.get("DIRECTUS_URL")
        if not url:
            raise ConfigError("--directus is required, as --directus http://127.0.0.1:8055")
        token = config.secret("--token-file", self["token-file"], os.environ, "DIRECTUS_TOKEN")
        try:
            directus = Directus(checked_url(url), checked_token(token))
        except ValueError as error:
            raise ConfigError(f"--directus: {error}") from None
        return bridge_role(
            reactor,
            reachable(redis_address(self["redis"], os.environ), reactor),
            directus,
            hook=self._hook(reactor),
            name=config.name_of("--consumer", self["consumer"], os.environ, "CONSUMER_NAME"),
            credentials=Credentials(
                *(
                    None if (file := self[f"control-{name}"]) is None else Path(file)
                    for name in ("key", "cert", "ca")
                )
            ),
            pace=config.settings(BridgePace, self),
            health=health,
            abort=abort,
            metrics_registry=metrics_registry,
        )

    def _hook(self, reactor: Reactor) -> Hook | None:
        if self["webhook"] == "none":
            return None
        name = f"--webhook {self['webhook']}"
        secret = config.secret(
            "--secret-file", self["secret-file"], os.environ, "TRACKER_WEBHOOK_SECRET"
        )
        return Hook(name, loopback_endpoint(reactor, name, self["webhook"]), secret)
