"""Packages fetched with the client that the machine has for them, and read without being installed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

from statemix.training.files import RunError, writing

SECONDS = 900
"""How long a client may take for one package."""

INDEXES = "indexes"
"""The folder with Debian's lists of packages and their descriptions."""


class SourceError(RunError):
    """A source that cannot be fetched or read. The message says why."""


@dataclass(frozen=True)
class Contents:
    """The files of a package: their names in order, and a function that gives one's bytes."""

    version: str
    names: Sequence[str]
    read: Callable[[str], bytes]


class Kind(NamedTuple):
    """How packages of a kind are had: fetched into a folder, and opened there."""

    fetch: Callable[[str, Path, Path], None]
    """(package, empty folder to fill, folder of all packages)."""
    open: Callable[[Path], contextlib.AbstractContextManager[Contents]]


def fetched(kind: str, package: str, cache: Path) -> Path:
    """The folder of a package below `cache`, fetched if it is not there yet: whole or not at all. SourceError."""
    name = INDEXES if kind == "descriptions" else package
    there = cache / name
    if there.is_dir():
        return there
    unfinished = cache / f".{name}.unfinished"
    with writing(unfinished):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    KINDS[kind].fetch(package, unfinished, cache)
    with writing(there):
        unfinished.rename(there)
    return there


def run_client(command: Sequence[str], folder: Path) -> None:
    """Run a package client in a folder. SourceError with the last line that it said of an error."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise SourceError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"{command[0]} took longer than {SECONDS} s") from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.lower().startswith(("e:", "error"))] or said
        raise SourceError(errors[-1] if errors else f"{command[0]} ended with exit code {done.returncode}")


def _apt(cache: Path, *arguments: str) -> list[str]:
    """apt-get with lists of its own, so that it needs no rights and changes nothing of the machine's."""
    lists = cache.resolve()
    return [
        "apt-get", "-q", "-o", f"Dir::State::Lists={lists}", "-o", "Acquire::Languages=en",
        "-o", "Acquire::GzipIndexes=false", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
        "-o", "Debug::NoLocking=true", *arguments,
    ]  # fmt: skip


def fetch_indexes(package: str, folder: Path, cache: Path) -> None:
    """Debian's lists of packages and their English descriptions."""
    (folder / "partial").mkdir()
    run_client(_apt(folder, "update"), folder)
    if not any(folder.glob("*_Translation-en")):
        raise SourceError("apt-get update brought no descriptions in English: is a Debian mirror set up?")


def fetch_debian(package: str, folder: Path, cache: Path) -> None:
    """The newest version of a Debian package."""
    run_client(_apt(fetched("descriptions", "", cache), "download", package), folder)


def fetch_wheel(package: str, folder: Path, cache: Path) -> None:
    """A Python package as a wheel."""
    run_client(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            ".",
            package,
        ],
        folder,
    )


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[Contents]:
    """Files as they lie in a folder."""
    yield Contents(
        "",
        sorted(path.name for path in folder.iterdir() if path.is_file()),
        lambda name: (folder / name).read_bytes(),
    )


@contextlib.contextmanager
def open_debian(folder: Path) -> Iterator[Contents]:
    """The regular files of a .deb."""
    package = _only(folder, "*.deb")
    with tempfile.TemporaryFile(dir=folder) as unpacked, contextlib.ExitStack() as opened:
        try:
            subprocess.run(
                ["dpkg-deb", "--fsys-tarfile", package.name], cwd=folder, stdout=unpacked, stderr=subprocess.PIPE,
                check=True,
            )  # fmt: skip
            unpacked.seek(0)
            archive = opened.enter_context(tarfile.open(fileobj=unpacked))
        except FileNotFoundError:
            raise SourceError("dpkg-deb is not installed") from None
        except (subprocess.CalledProcessError, tarfile.TarError) as error:
            raise SourceError(f"{package} is damaged: remove its folder, and it is fetched again") from error
        files = {one.name.removeprefix("./"): one for one in archive if one.isfile()}
        yield Contents(
            package.name.split("_")[1].replace("%3a", ":"), sorted(files),
            lambda name: cast("IO[bytes]", archive.extractfile(files[name])).read(),
        )  # fmt: skip


@contextlib.contextmanager
def open_wheel(folder: Path) -> Iterator[Contents]:
    """The files of a wheel."""
    package = _only(folder, "*.whl")
    with contextlib.ExitStack() as opened:
        try:
            archive = opened.enter_context(zipfile.ZipFile(package))
        except zipfile.BadZipFile:
            raise SourceError(f"{package} is damaged: remove its folder, and it is fetched again") from None
        yield Contents(package.name.split("-")[1], sorted(archive.namelist()), archive.read)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SourceError(
            f"{folder} holds {len(found)} files {pattern}, expected one: remove it, and it is fetched again"
        )
    return found[0]


KINDS: dict[str, Kind] = {
    "debian": Kind(fetch_debian, open_debian),
    "descriptions": Kind(fetch_indexes, open_folder),
    "wheel": Kind(fetch_wheel, open_wheel),
}
"""By the name that `TextSource.kind` gives."""
