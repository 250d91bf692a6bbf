"""Parse and show untrusted text: from Redis, a database, Directus or a peer.

Everything that another program can write is untrusted. Two rules make it harmless: JSON is
parsed by :func:`parse_json`, which raises only :exc:`ValueError`, and text passes through
:func:`shown` before it becomes part of a log line, an error message, a metric label or a table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from tracker.wording import counted

#: Maximum number of characters of a text that are shown, unless the caller allows more.
MAX_SHOWN: Final = 200
#: Maximum number of characters of a log line or reason that is composed of several texts.
MAX_LINE: Final = 1000
#: Maximum number of items of a list that are shown.
MAX_LISTED: Final = 10
#: Maximum depth of arrays and objects in a JSON text. Python's recursion limit allows about a
#: thousand, minus the frames on the stack; encoding the value again needs as many.
MAX_DEPTH: Final = 100
#: Maximum number of digits of an integer in a JSON text. The time to convert an integer grows
#: with the square of that number.
MAX_DIGITS: Final = 1000
#: Maximum number of bytes of a JSON text, unless the caller allows more.
MAX_JSON_BYTES: Final = 64 * 1024


def parse_json(text: str | bytes, max_size: int = MAX_JSON_BYTES) -> Any:
    r"""Parse JSON of another program.

    Numbers are finite. If a name occurs twice in an object, the last value counts. A string may
    hold half of a surrogate pair (``"\ud800"``), see :func:`is_unicode`.

    :param max_size: maximum number of bytes or characters; a longer text is not parsed.
    :raises ValueError: if the text is invalid. The message is one short line without any part of
        the text.
    """
    if len(text) > max_size:
        raise ValueError(f"longer than {counted(max_size, 'byte')} ({len(text):,})")
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise ValueError("not UTF-8") from None
    try:
        value = json.loads(
            text, parse_int=_integer, parse_float=_finite, parse_constant=_no_constant
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos:,}") from None
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def _is_deep(value: Any) -> bool:
    """Return True if a value has more than :data:`MAX_DEPTH` levels; does not recurse."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [part for part in one.values() if isinstance(part, dict | list)]
            elif isinstance(one, list):
                inner += [part for part in one if isinstance(part, dict | list)]
        if not inner:
            return False
        level = inner
    return True


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {counted(len(text), 'character')}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("too large a number")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def is_unicode(text: str) -> bool:
    """Return True if a text can be encoded as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str | bytes | BaseException, max_length: int = MAX_SHOWN) -> str:
    """Return a text in a form that is safe to log or show: one printable line of bounded length.

    Control characters, separators, half surrogate pairs and bytes that are not UTF-8 are escaped
    as in Python. A longer text is cut, and its full length is appended.

    :param text: of an exception, its message is used, or its class name if the message is empty.
    :param max_length: maximum number of characters of the result, without the appended length.
    """
    if isinstance(text, BaseException):
        text = str(text) or type(text).__name__
    size, unit = len(text), "bytes" if isinstance(text, bytes) else "characters"
    if isinstance(text, bytes):
        kept = text[: 4 * max_length]  # a character has at most 4 bytes
        whole = len(kept) == size
        beginning = _decoded(kept, whole)
    else:
        beginning = text[:max_length]
        whole = len(beginning) == size
    if not beginning.isprintable():
        beginning = "".join(map(_escaped, beginning))
    if whole and len(beginning) <= max_length:
        return beginning
    return f"{beginning[:max_length]}… ({size:,} {unit})"


def _decoded(data: bytes, whole: bool) -> str:
    # The cut may split a character, which is not an error in the text.
    if not whole:
        for cut in range(1, 4):
            try:
                return data[: len(data) - cut].decode()
            except UnicodeDecodeError:
                continue
    return data.decode(errors="backslashreplace")


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def listed(texts: Iterable[str], max_listed: int = MAX_LISTED) -> str:
    """Join texts into one line, in their order; give the number of those beyond ``max_listed``."""
    every = list(texts)
    names = ", ".join(shown(one) for one in every[:max_listed])
    left_out = len(every) - max_listed
    return f"{names} and {left_out:,} more" if left_out > 0 else names
