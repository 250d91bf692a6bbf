"""Names of attributes, for ``--names``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import evolve
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.config import ConfigError, files_by_model, vendor_and_model
from tracker.errors import Refused, Unavailable
from tracker.interfaces import INaming, StoredPosition, UnknownModel
from tracker.keys import DEVICE_MODELS
from tracker.position import EncodedAttributes
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping
from tracker.redis.timer import RedisTimer
from tracker.storage.rows import encode_json
from tracker.untrusted import MAX_SHOWN, shown
from tracker.vendors.installed import installed_vendors

#: Seconds between two reads of the devices' models.
REFRESH_INTERVAL: Final = 60

#: Maximum number of models that are checked; further ones are used without a check.
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
            self._models = await read_models(self._redis)
        except (Refused, Unavailable) as error:
            self._log.warn("cannot read {key}: {error}", key=DEVICE_MODELS, error=error)
            return
        self._models_read = True


async def read_models(redis: RedisConnection) -> Mapping[str, str]:
    """Return device → model, as the bridge has written them."""
    fields = await redis.execute("HGETALL", DEVICE_MODELS)
    # A longer text is neither a device ID nor a model.
    return mapping([field[:MAX_SHOWN].decode(errors="replace") for field in fields])


def namings_of(given: Iterable[str] | None, default_model: str | None) -> dict[str, INaming]:
    """Return vendor → naming of its attributes.

    :param given: the values of ``--names-map``; None if the role lacks the option.
    :param default_model: the value of ``--default-model``.
    :raises ConfigError: if a value is malformed, a model is unknown, or a file is not valid.
    """
    vendors = installed_vendors()
    files = files_by_model(given or (), vendors)
    defaults = {}
    if default_model is not None:
        name, model = vendor_and_model(f"--default-model {default_model}", default_model, vendors)
        defaults[name] = model
    namings: dict[str, INaming] = {}
    for name, vendor in vendors.items():
        own = {model: file for (its, model), file in files.items() if its == name}
        try:
            naming = vendor.buildNaming(own, defaults.get(name))
        except UnknownModel as error:
            more = "" if given is None else f", or add a list with --names-map {default_model}=FILE"
            raise ConfigError(f"--default-model {error}{more}.") from None
        except OSError as error:
            raise ConfigError(f"--names-map: {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"--names-map: {error}") from None
        if naming is not None:
            namings[name] = naming
        elif own or name in defaults:
            option = "--names-map" if own else "--default-model"
            raise ConfigError(f"{option}: {name} has no names of attributes")
    return namings
