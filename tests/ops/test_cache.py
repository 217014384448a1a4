"""Compiled kernels on the disk: never outdated, never in the way."""

from __future__ import annotations

import compileall
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile

import pytest

pytest.importorskip("numba")

from numba.core.cpu import CPUContext

from statemix.ops.cpu import cache
from statemix.ops.cpu.numbers import kernel

resource = pytest.importorskip("resource")
SOURCES = pathlib.Path(cache.__file__).parent


def fresh():
    """A small kernel that nobody has compiled in this process, of the same code each time."""

    def twice(x):
        return x + x

    return kernel(twice)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two folders, neither there yet, as the only places for kernels."""
    found = [tmp_path / "first" / "deep", tmp_path / "second"]
    monkeypatch.setattr(cache, "folders", lambda: found)
    monkeypatch.setattr(cache.KernelCache, "_warned", False)
    return found


def kept(folder):
    return sorted(folder.glob("*")) if folder.is_dir() else []


def hits(function):
    assert function(3) == 6
    return sum(function.stats.cache_hits.values())


def test_a_kernel_is_kept_and_found_again(places):
    assert hits(fresh()) == 0
    (file,) = kept(places[0])
    assert file.suffix == ".nbc" and kept(places[1]) == []
    assert hits(fresh()) == 1


def test_a_kernel_that_is_found_does_not_wait_for_the_compiler(places, monkeypatch):
    """What only compiling needs takes several times as long as reading a kernel, in every process."""
    hits(fresh())
    monkeypatch.setattr(CPUContext, "refresh", lambda self: pytest.fail("the compiler was made ready"))
    assert hits(fresh()) == 1


def test_a_folder_that_cannot_be_written_is_read(places):
    hits(fresh())
    places.reverse()  # as a warm install that is read-only, after a folder without kernels
    places[0].parent.joinpath(places[0].name).write_text("a file where a folder should be")
    assert hits(fresh()) == 1


DAMAGES = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut within the digest": lambda data: data[:7],
    "one bit": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "something else": lambda data: pickle.dumps("something else"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_and_written_anew(damage, places):
    hits(fresh())
    (file,) = kept(places[0])
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[damage](whole))
    assert hits(fresh()) == 0
    assert hits(fresh()) == 1
    assert kept(places[0]) == [file]


def test_a_whole_file_of_foreign_content_is_compiled_anew(places):
    hits(fresh())
    (file,) = kept(places[0])
    assert cache._write(file, pickle.dumps(("not", "a", "kernel")))
    assert hits(fresh()) == 0
    assert hits(fresh()) == 1


def block(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


NOWHERE = {
    "files": lambda places: [block(place) for place in places],
    "below files": lambda places: [
        block(places[0].parent),
        block(places[1]),
        places.__setitem__(1, places[1] / "x"),
    ],
    "no such place": lambda places: places.__setitem__(slice(None), [pathlib.Path("/proc/none")]),
    "not one": lambda places: places.clear(),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_without_a_folder_kernels_run_and_one_warning_says_so(case, places):
    NOWHERE[case](places)
    with pytest.warns(
        RuntimeWarning, match="^the compiled CPU kernels cannot be cached.*NUMBA_CACHE_DIR"
    ) as seen:
        assert hits(fresh()) == hits(fresh()) == 0
    assert len(seen) == 1 and "\n" not in str(seen[0].message)


def test_a_folder_may_vanish_and_another_takes_over(places):
    hits(fresh())
    shutil.rmtree(places[0].parent)
    places[0].parent.write_text("")
    assert hits(fresh()) == 0
    assert len(kept(places[1])) == 1
    assert hits(fresh()) == 1


def test_a_full_disk_leaves_nothing_behind(places):
    """A limit on the size of files fails where a full disk does: in the middle of writing."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.warns(RuntimeWarning, match="cannot be cached"):
            assert hits(fresh()) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert kept(places[0]) == kept(places[1]) == []


def test_files_written_at_the_same_time_are_whole(tmp_path):
    path, payloads = tmp_path / "one.nbc", [bytes([k]) * 50_000 for k in range(4)]
    assert cache._write(path, payloads[0])
    threads = [
        threading.Thread(target=lambda p=payload: [cache._write(path, p) for _ in range(20)])
        for payload in payloads
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert cache._read(path) in payloads
    assert kept(tmp_path) == [path]


def test_other_users_may_read_what_one_has_kept(tmp_path):
    before = os.umask(0o022)
    try:
        cache._write(tmp_path / "one.nbc", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "one.nbc").stat().st_mode & 0o777 == 0o644


def test_the_places(monkeypatch, tmp_path):
    monkeypatch.setattr(cache.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    beside = SOURCES / "__pycache__"
    assert cache.folders()[0] == beside
    monkeypatch.setattr(cache.config, "CACHE_DIR", str(tmp_path / "mine"))
    assert cache.folders()[:2] == [tmp_path / "mine", beside]
    monkeypatch.setattr(cache.AppDirs, "user_cache_dir", "~/.cache")  # a user without a home
    assert cache.folders() == [tmp_path / "mine", beside]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the kernels under another name, with one small kernel that uses a helper of theirs."""
    folder = tmp_path / "install" / "copied_kernels"
    folder.mkdir(parents=True)
    for path in SOURCES.glob("*.py"):
        if path.name not in ("__init__.py", "scans.py", "workers.py"):
            text = path.read_text().replace("statemix.ops.cpu", "copied_kernels")
            (folder / path.name).write_text(text)
    (folder / "__init__.py").touch()
    (folder / "small.py").write_text(
        "from copied_kernels.numbers import kernel\nfrom copied_kernels.tiles import spread_adjoint\n\n\n"
        "@kernel\ndef small(f, r, adjoint):\n    spread_adjoint(f, 0, 0, r, adjoint, 1)\n"
    )
    return folder


RUN_SMALL = """
import numpy as np
from copied_kernels.small import small
out = np.zeros((1, 1), np.float32)
small(np.full((1, 1), 3, np.float32), np.full(1, 2, np.float32), out)
print(out[0, 0], sum(small.stats.cache_hits.values()))
"""


def start_small(package, **environment):
    return subprocess.run(
        [sys.executable, "-c", RUN_SMALL],
        env={**os.environ, "PYTHONPATH": str(package.parent), **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def run_small(package, **environment):
    done = start_small(package, **environment)
    assert done.stderr == ""
    return done.stdout.split()


def edit_helper(package):
    """Another result, in as many bytes and with the same times; then no bytecode of the old source."""
    path = package / "tiles.py"
    status = path.stat()
    text = path.read_text()
    assert "target[n] += a[n] * r[n]" in text
    path.write_text(text.replace("target[n] += a[n] * r[n]", "target[n] -= a[n] * r[n]"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    for compiled in (package / "__pycache__").glob("*.pyc"):
        compiled.unlink()


@pytest.mark.slow
def test_an_edited_helper_is_seen(package):
    environment = {"NUMBA_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"}
    assert run_small(package, **environment) == ["6.0", "0"]
    assert run_small(package, **environment) == ["6.0", "1"]
    edit_helper(package)
    assert run_small(package, **environment) == ["-6.0", "0"]


def digest_of(folder, monkeypatch):
    """The digest of the copied kernels as a process that imports them from a folder sees it."""
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == "copied_kernels"]:
        monkeypatch.delitem(sys.modules, name)
    __import__("copied_kernels")
    try:
        return cache.code_digest("copied_kernels")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "copied_kernels"]:
            del sys.modules[name]


def test_the_digest_is_of_the_code_wherever_it_lies(package, tmp_path, monkeypatch):
    want = digest_of(package.parent, monkeypatch)
    assert len(want) == 64

    moved = tmp_path / "moved"
    shutil.copytree(package.parent, moved)
    assert digest_of(moved, monkeypatch) == want

    bytecode = tmp_path / "bytecode"
    shutil.copytree(package.parent, bytecode)
    compileall.compile_dir(bytecode, legacy=True, quiet=1)
    for path in bytecode.rglob("*.py"):
        path.unlink()
    of_bytecode = digest_of(bytecode, monkeypatch)
    assert len(of_bytecode) == 64
    assert digest_of(bytecode, monkeypatch) == of_bytecode

    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.parent.rglob("*.py"):
            file.write(path, path.relative_to(package.parent))
    assert digest_of(archive, monkeypatch) == want

    edit_helper(package)
    assert digest_of(package.parent, monkeypatch) != want


def test_every_version_that_matters_is_in_the_name(monkeypatch):
    seen = {fresh()._cache._base}
    for module in (cache.numba, cache.llvmlite, cache.np):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "0")
            seen.add(fresh()._cache._base)
    assert len(seen) == 4


def test_where_nothing_can_be_written(package, tmp_path):
    """A read-only install, a home that is no folder and a wrong NUMBA_CACHE_DIR: right numbers, one warning."""
    home = tmp_path / "home"
    for path in (package / "__pycache__", home):
        path.write_text("")
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), str(home))
    done = start_small(package, **places, PYTHONDONTWRITEBYTECODE="1")
    assert done.stdout.split() == ["6.0", "0"]
    assert done.stderr.count("Warning") == 1 and "cannot be cached" in done.stderr


def test_nothing_is_said_where_all_is_well(places):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hits(fresh()) == 0 and hits(fresh()) == 1


@pytest.mark.skipif(cache.fcntl is None, reason="no file locks here")
def test_a_process_waits_for_the_one_that_compiles_and_is_not_held_up_by_a_dead_one(tmp_path, monkeypatch):
    code = (
        "import sys; from statemix.ops.cpu import cache; f = cache._lock('k.lock'); print(); sys.stdin.read()"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        monkeypatch.setattr(cache, "folders", lambda: [tmp_path])
        waiting = threading.Thread(target=lambda: cache._lock("k.lock").close())
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        other.kill()
        waiting.join(10)
        assert not waiting.is_alive()


def test_what_another_process_has_compiled_meanwhile_is_taken(places, monkeypatch):
    def while_waiting(name):
        monkeypatch.setattr(cache, "_lock", lambda name: None)
        fresh()(3)

    monkeypatch.setattr(cache, "_lock", while_waiting)
    assert hits(fresh()) == 1
