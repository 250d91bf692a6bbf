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
from tracker.tap.role import CONTROL_CLIENT, REDIS, RoleOptions, checked_address, loopback_endpoint


class BridgeOptions(RoleOptions):
    """Options of the bridge to Directus."""

    longdesc = (
        "Sends the commands written in Directus to devices, reports the status of each one to "
        "Directus, and copies the list of allowed devices from Directus to Redis."
    )
    optParameters: ClassVar[list[Any]] = [
        REDIS,
        ("directus", None, None, "URL of Directus, such as http://127.0.0.1:8055. "
         "[default: DIRECTUS_URL; required]"),
        ("token-file", None, None, "File with the static token of the bridge's user in Directus. "
         "[default: DIRECTUS_TOKEN_FILE, or the token in DIRECTUS_TOKEN]"),
        ("webhook", None, config.DEFAULT_WEBHOOK, "Endpoint that receives the posts of Directus' "
         "Flows, on loopback unless it names an interface; or none."),
        ("secret-file", None, None, "File with the secret that the Flows send. [default: "
         "TRACKER_WEBHOOK_SECRET_FILE, or the secret in TRACKER_WEBHOOK_SECRET]"),
        ("consumer", None, None, "Name of this bridge in the consumer group directus; it must be "
         "the same after a restart. [default: CONSUMER_NAME, or the host name and -1]"),
        *CONTROL_CLIENT,
        *((name, None, default, text) for name, default, text in options_of(BridgePace)),
    ]  # fmt: skip

    def build(
        self, reactor: Reactor, health: Health, metrics_registry: CollectorRegistry, abort: Abort
    ) -> Role:
        """See RoleOptions."""
        url = self["directus"] or os.environ.get("DIRECTUS_URL")
        if not url:
            raise ConfigError(
                "--directus is required, for example --directus http://127.0.0.1:8055"
            )
        token = config.secret("--token-file", self["token-file"], os.environ, "DIRECTUS_TOKEN")
        try:
            directus = Directus(checked_url(url), checked_token(token))
        except ValueError as error:
            raise ConfigError(f"--directus: {error}") from None
        return bridge_role(
            reactor,
            checked_address(redis_address(self["redis"], os.environ), reactor),
            directus,
            hook=self._hook(reactor),
            name=config.stable_name("--consumer", self["consumer"], os.environ, "CONSUMER_NAME"),
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
