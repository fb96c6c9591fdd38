"""Plain values: what records are made of, written as JSON and hashed the same on every machine."""

import hashlib
import json
from typing import Any

Attribute = tuple[str, Any]
"""A name and a plain value: a number, a string, a boolean, or a tuple of them."""


def canonical_json(value: Any) -> str:
    """Write a value as JSON that is the same on every machine and in every process."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def short_hash(value: Any) -> str:
    """Hash a JSON value to 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def freeze_value(value: Any) -> Any:
    """Turn JSON's lists into tuples, all the way down, so that the value can stand in a frozen record."""
    return tuple(freeze_value(item) for item in value) if isinstance(value, list | tuple) else value
