"""What a program shows to the control ports that it finds by instances' heartbeats."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen
from twisted.internet.endpoints import quoteStringArgument


@frozen
class Credentials:
    """Files in PEM: a private key, its certificate, and the authority of the instances'."""

    key: Path | None = None
    certificate: Path | None = None
    authority: Path | None = None

    def address(self, advertised: str) -> str:
        """The whole address of a control port that a heartbeat tells of.

        :raises ValueError: when it takes files that are not given; in one line.
        """
        if not advertised.startswith("ssl:"):
            return advertised
        files = {"privateKey": self.key, "certKey": self.certificate, "caCert": self.authority}
        if None in files.values():
            raise ValueError(
                "it has TLS: --control-key, --control-cert and --control-ca are needed"
            )
        quoted = (f":{name}={quoteStringArgument(str(file))}" for name, file in files.items())
        return advertised + "".join(quoted)
