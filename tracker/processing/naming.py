"""Names of attributes, for ``--names``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.interfaces import INaming, StoredPosition
from tracker.keys import DEVICE_MODELS
from tracker.position import EncodedAttributes
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping
from tracker.redis.timer import RedisTimer
from tracker.storage.rows import encode_json
from tracker.untrusted import MAX_SHOWN, shown

#: Seconds between two reads of the devices' models.
REFRESH_INTERVAL: Final = 60

#: Models that were checked; further ones are used, and not checked.
_MAX_REPORTED: Final = 1000


class Namer(RedisTimer):
    """Service that names attributes by the vendor's dictionary, and by the device's model if known.

    Models are read from the hash ``devices:models``. Before the first read only names on which all
    models agree are used; while Redis is down, the last copy is used.

    :param namings: vendor → the names of its attributes.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, redis: RedisConnection, namings: Mapping[str, INaming]
    ) -> None:
        super().__init__(clock, redis, REFRESH_INTERVAL, self._refresh)
        self._redis = redis
        self._namings = namings
        self._models: Mapping[str, str] = {}
        self._models_read = False
        self._reported: set[tuple[str, str]] = set()

    def name(self, stored: StoredPosition) -> StoredPosition:
        """Return the position with named attributes, encoded as text to save memory."""
        naming = self._namings.get(stored.vendor)
        if naming is None:
            return stored
        position = stored.position
        # Before the first read, a device may have another model than the default one.
        model = (self._models.get(position.device_id) or None) if self._models_read else ""
        if model and (stored.vendor, model) not in self._reported:
            self._check(stored.vendor, naming, model)
        named = naming.named(position.attributes, stored.extra.widths, model, stored.codec)
        if isinstance(position.attributes, EncodedAttributes):
            position.attributes.forget()
        return evolve(stored, named=EncodedAttributes(encode_json(named)))

    def _check(self, vendor: str, naming: INaming, model: str) -> None:
        """Log a model without names, once."""
        if len(self._reported) >= _MAX_REPORTED:
            return
        self._reported.add((vendor, model))
        if not naming.knows(model):
            self._log.warn(
                "model {model} in {key} is not in the lists of {vendor}: its devices are named "
                "like those of an unknown model",
                model=shown(model),
                key=DEVICE_MODELS,
                vendor=vendor,
            )

    async def _refresh(self) -> None:
        try:
            fields = await self._redis.execute("HGETALL", DEVICE_MODELS)
        except (Refused, Unavailable) as error:
            self._log.warn("cannot read {key}: {error}", key=DEVICE_MODELS, error=error)
            return
        # A longer text is neither a device ID nor a model.
        texts = [field[:MAX_SHOWN].decode(errors="replace") for field in fields]
        self._models = mapping(texts)
        self._models_read = True
