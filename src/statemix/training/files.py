"""Files written whole or not at all, with digests that show damage, and errors that name the file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

DIGEST = "sha256"
"""The key under which a JSON object holds the digest of all the rest."""

_HEX = re.compile(r"[0-9a-f]{64}")

_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)(?<!\.\d{8})(\.[0-9a-f]{8})?\.tmp")
"""".NAME.HOST.PROCESS.RANDOM.tmp"; earlier versions wrote no random part."""

OLD = 86_400
"""Seconds after which nobody is still writing."""


class RunError(RuntimeError):
    """A run folder, a checkpoint or the disk is not as it must be. The message names the file."""


class BusyError(RunError):
    """Another process is training this run now."""


class MissingFileError(RunError, ValueError):
    """A file that was named does not exist."""


def digest_of(content: Mapping[str, Any], data: bytes = b"") -> str:
    """The SHA-256 of the canonical JSON of `content` followed by `data`, 64 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode() + data).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest, as the last entry. ValueError for NaN and infinities."""
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return {**plain, DIGEST: digest_of(plain)}


def unseal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content less its digest. ValueError when the digest does not fit, or is missing where there was one."""
    rest = {key: value for key, value in content.items() if key != DIGEST}
    if DIGEST in content:
        if content[DIGEST] != digest_of(rest):
            raise ValueError("its content does not fit the digest that was written with it")
    elif any(isinstance(one, str) and _HEX.fullmatch(one) for key, one in rest.items() if key != "name"):
        raise ValueError(f"it has no entry {DIGEST!r}")  # there is another digest, so its key was damaged
    return rest


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the file and says that nothing older was lost."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write {path}: {reason} (what was saved before is untouched)") from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place: whole or not at all.

    The temporary file is new and its name cannot be guessed. A link under the name `path` is replaced, not followed.
    """
    owner = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{owner}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        try:
            write(temporary)
            _sync(temporary, os.O_RDWR)
            temporary.replace(path)
            if os.name == "posix":  # other systems do not open folders
                _sync(path.parent, os.O_RDONLY)
        finally:
            temporary.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Whether a file has the name of one that `replace_file` has not put in place yet."""
    return _TEMPORARY.fullmatch(path.name) is not None


def abandoned(temporary: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or it is `OLD`."""
    name = _TEMPORARY.fullmatch(temporary.name)
    if name is None:
        return False  # not a temporary file of a run
    with contextlib.suppress(
        OSError
    ):  # the process is another user's, or the file has just been put in place
        if f".{socket.gethostname()}." in temporary.name:
            try:
                os.kill(int(name["pid"]), 0)
            except ProcessLookupError:
                return True
        return time.time() - temporary.lstat().st_mtime > OLD
    return False


def check_in_place(path: Path, descriptor: int) -> None:
    """RunError unless the open file is still the one of that name."""
    with contextlib.suppress(OSError):
        if os.path.samestat(path.lstat(), os.fstat(descriptor)):
            return
    raise RunError(
        f"{path} was removed, moved or replaced while the run was training: put it back, or run the same command to "
        "resume from the last checkpoint"
    )


def read_bytes(path: Path) -> bytes:
    """The whole of a regular file. OSError for whatever is no file: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object and its digest, whole or not at all. ValueError for NaN and infinities."""
    text = json.dumps(seal(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, less its digest. RunError when the file is missing, unreadable, damaged or something else.

    Files of earlier versions and files written by hand have no digest.
    """
    try:
        content = json.loads(read_bytes(path), parse_constant=_finite, parse_float=_finite)
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist: {path.parent} is not a run folder") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"cannot read {path}: {reason}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} holds {type(content).__name__}, expected a JSON object")
    try:
        return unseal(content)
    except ValueError as error:
        hint = f"if it was edited by hand, remove its entry {DIGEST!r}"
        raise RunError(f"{path} is damaged: {error}; {hint}") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that JSON knows")
    return number
