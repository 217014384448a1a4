"""Compiled kernels on the disk: one file for each kernel, signature, processor and version of the code.

Numba's own cache asks whether a kernel's own file has changed, not whether a helper has; it needs a folder that is
writable when the kernel is imported, and fails on a damaged file. Here a file is named by a digest of the code of
every module of this folder, it is read from wherever it lies, and whatever goes wrong only means compiling.
"""

# mypy: ignore-errors
from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import pickle
import pkgutil
import sys
import time
import uuid
import warnings
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

try:
    import fcntl
except ImportError:  # Windows: several processes may compile one kernel at a time
    fcntl = None

DIGEST_BYTES = hashlib.sha256().digest_size
PATIENCE = 120.0
"""Seconds that a process waits for another that compiles the same kernel."""


def code_digest(package):
    """A digest of every module of a package as its loader reads it: a source file, bytecode or a part of an archive."""
    digest = hashlib.sha256()
    names = sorted(module.name for module in pkgutil.iter_modules(sys.modules[package].__path__))
    if not names:
        raise ImportError(f"{package}: no modules found", name=package)
    for name in names:
        spec = importlib.util.find_spec(f"{package}.{name}")
        digest.update(spec.name.encode() + spec.loader.get_data(spec.origin))
    return digest.hexdigest()


try:
    CODE = code_digest(__package__)
except (ImportError, AttributeError, OSError):
    CODE = None  # nothing tells one version from another: nothing is cached


def folders():
    """Where kernels are read from and written to, in this order: NUMBA_CACHE_DIR, beside the code, the user's cache."""
    user = AppDirs(appname="numba", appauthor=False).user_cache_dir
    places = [
        Path(config.CACHE_DIR) if config.CACHE_DIR else None,
        Path(__file__).parent / "__pycache__",
        Path(user) / "statemix" if Path(user).is_absolute() else None,  # relative: a user without a home
    ]
    return [place for place in places if place is not None]


def _read(path):
    """The bytes of a cached file; None if there is none, or a damaged one."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    digest, payload = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    return payload if hashlib.sha256(payload).digest() == digest else None


def _write(path, payload):
    """Put bytes and their digest at a path, whole or not at all; whether that worked."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(hashlib.sha256(payload).digest() + payload)
        temporary.replace(path)
        return True
    except (OSError, ValueError):
        return False
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def _lock(name):
    """A file that this process holds a lock on until it is closed, in the first folder that takes it; None if none.

    It is freed however the process ends, and a forked child does not hold it.
    """
    for folder in folders() if fcntl else ():
        with contextlib.suppress(OSError, ValueError):
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / name).open("wb")
            _wait(file)
            return file
    return None


def _wait(file):
    """Lock a file, or go on without after `PATIENCE` seconds, or where a file system has no locks."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):  # held by another process
            time.sleep(0.05)
        except OSError:
            return


class KernelCache(NullCache):
    """The cache of one kernel, as Numba's dispatcher calls it.

    Processes that start together share the work: one compiles a kernel, the others wait for its file.
    """

    _warned = False

    def __init__(self, function):
        self._name, self._lock = function.__name__, None
        self._base = (
            CODE, function.__module__, function.__qualname__,
            sys.implementation.cache_tag, numba.__version__, llvmlite.__version__, np.__version__,
        )  # fmt: skip

    def _file(self, signature, codegen):
        key = hashlib.sha256(repr((self._base, signature, codegen.magic_tuple())).encode()).hexdigest()
        return f"statemix-{self._name}-{key[:32]}.nbc"

    def load_overload(self, sig, target_context):
        """The compiled kernel for a signature; None, and the right to compile it, if it lies nowhere.

        A kernel calls Numba's runtime and nothing else of what `refresh` loads, which takes longer than all the rest.
        """
        rtsys.initialize(target_context)
        if CODE is None:
            return None
        try:
            name = self._file(sig, target_context.codegen())
            kernel = self._load(name, target_context)
            if kernel is None:
                self._lock = _lock(f"{name}.lock")
                kernel = self._load(name, target_context)  # what another process has written meanwhile
        except Exception:  # whatever a foreign or half-fitting file raises: it is compiled anew
            return None
        if kernel is not None:
            self._free()
        return kernel

    @staticmethod
    def _load(name, target_context):
        for folder in folders():
            payload = _read(folder / name)
            if payload is not None:
                return CompileResult._rebuild(target_context, *pickle.loads(payload))
        return None

    def _free(self):
        """Let the processes that wait for this kernel go on."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                Path(self._lock.name).unlink()
            self._lock.close()
            self._lock = None

    def save_overload(self, sig, data):
        """Write a compiled kernel to the first folder that takes it; warn once if none does."""
        if CODE is None:
            return
        name, payload, places = self._file(sig, data.codegen), dumps(data._reduce()), folders()
        written = any(_write(folder / name, payload) for folder in places)
        self._free()
        if written or KernelCache._warned:
            return
        KernelCache._warned = True
        warnings.warn(
            "the compiled CPU kernels cannot be cached, so every process compiles them again: expected a writable "
            f"folder, got none among {', '.join(map(str, places))}; NUMBA_CACHE_DIR names another",
            RuntimeWarning,
            stacklevel=2,
        )
