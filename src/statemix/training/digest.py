"""Digests of what a run writes, so that damage is noticed when it is read back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

DIGEST = "sha256"
"""The key under which a JSON object, or the metadata of a safetensors file, holds the digest of all the rest."""

_HEX = re.compile(r"[0-9a-f]{64}")


def digest_of(content: Mapping[str, Any], data: bytes | memoryview = b"") -> str:
    """The SHA-256 of the canonical JSON of `content` followed by `data`, 64 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode())
    digest.update(data)
    return digest.hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest, as the last entry. ValueError for NaN and infinities."""
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return {**plain, DIGEST: digest_of(plain)}


def unseal(content: Mapping[str, Any], data: bytes | memoryview = b"") -> dict[str, Any]:
    """The content less its digest. ValueError when the digest does not fit, or is missing where there was one."""
    rest = {key: value for key, value in content.items() if key != DIGEST}
    if DIGEST in content:
        if content[DIGEST] != digest_of(rest, data):
            raise ValueError("its content does not fit the digest that was written with it")
    elif any(_like_digest(value) for key, value in rest.items() if key != "name"):
        raise ValueError(f"it has no entry {DIGEST!r}")
    return rest


def _like_digest(value: Any) -> bool:
    """Whether it may be a digest whose key was damaged, or one that is only written together with a digest."""
    return isinstance(value, str) and _HEX.fullmatch(value) is not None
