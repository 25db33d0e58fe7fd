"""Canonical JSON: one text for one value, so that what is signed can be compared byte by byte.

Source: RFC 8785 (JSON Canonicalization Scheme), without floating-point numbers: keys sorted, no white space, UTF-8,
integers of at most 53 bits. Reading builds the value again and demands the same bytes: repeated keys, other spellings of
a number or a text, and anything behind the document are refused by that alone.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from quarkctl.errors import InputWrong

INTEGER_MAX = (1 << 53) - 1


def build(value: Any) -> bytes:
    """The one text of a value of dicts, lists, texts, integers, booleans and None."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse(data: bytes, what: str) -> dict[str, Any]:
    """The object that a canonical text stands for. Raises InputWrong, naming ``what`` it should have been."""
    try:
        value = json.loads(data.decode("utf-8"), parse_float=_refuse, parse_constant=_refuse, parse_int=_integer)
        same = isinstance(value, dict) and build(value) == data
    except UnicodeDecodeError as error:
        raise InputWrong(f"{what} is no text but something else") from error
    except (ValueError, RecursionError) as error:
        raise InputWrong(f"{what} is damaged: {error}") from error
    if not same:
        raise InputWrong(f"{what} is not canonical JSON of one object")
    return dict(value)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no integer")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > INTEGER_MAX:
        raise ValueError(f"an integer of {len(text)} digits is too large")
    return int(text)
