"""Real servers for tests: found on this machine, or unpacked from Debian's packages into a cache folder.

Nothing is installed and nothing outside the cache changes, so no root is needed. `unpacked` gives the root of the
unpacked files, `server` what to start with which environment. Where neither works the test is skipped with the reason;
under CI=true that is a failure instead, because there nobody reads about skipped tests.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kappa" / "servers"
USUAL = ("/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/local/sbin")
FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")
COMMAND_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Server:
    """A program that can be started: `environment` is added to that of the test."""

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        """The whole environment to start it with."""
        return {**os.environ, **self.environment}


@cache
def server(program: str, *packages: str) -> Server:
    """`program` from PATH or the usual places, else out of `packages` and what they depend on. Skips the test else."""
    found = shutil.which(program) or shutil.which(program, path=os.pathsep.join(USUAL))
    if found:
        return Server(Path(found))
    root = unpacked(*packages)
    places = (root / folder / program for folder in FOLDERS)
    path = next((place for place in places if os.access(place, os.X_OK)), None)
    if path is None:
        missing(f"the packages {', '.join(packages)} hold no program {program}")
    return Server(path, {"LD_LIBRARY_PATH": library_path(root)})


@cache
def unpacked(*packages: str) -> Path:
    """The root of the unpacked files of Debian's `packages`, with those of their dependencies that are not installed
    here. Programs in it want `library_path(root)` as LD_LIBRARY_PATH. Skips the test where that cannot be."""
    root = CACHE / "+".join(sorted(packages))
    if not (root / ".complete").exists():
        with _locked():
            if not (root / ".complete").exists():
                _fill(root, packages)
    return root


def library_path(root: Path) -> str:
    """The folders with shared libraries below `root`, joined with colons."""
    folders = {path.parent for path in root.rglob("*.so*") if "plugins" not in path.parts}
    return os.pathsep.join(sorted(map(str, folders)))


def missing(reason: str) -> NoReturn:
    """Ends the test that needs a server which is not here."""
    told = f"{reason}; install it (apt-get install), or run where apt-get download works"
    if os.environ.get("CI") == "true":
        pytest.fail(told)
    pytest.skip(told)


def _fill(root: Path, packages: tuple[str, ...]) -> None:
    for tool in ("apt-get", "apt-cache", "dpkg", "dpkg-query"):
        if shutil.which(tool) is None:
            missing(f"{' '.join(packages)}: this is not a Debian ({tool} is missing)")
    fresh, debs = root.with_suffix(".new"), root.with_suffix(".debs")
    for folder in (fresh, debs):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        try:
            _download(packages, debs, ())
        except subprocess.CalledProcessError:
            # The machine's lists are old or were never fetched, and only root may renew them: fetch our own.
            options = (f"-oDir::State::lists={CACHE}/lists", f"-oDir::Cache={CACHE}/apt")
            for partial in ("lists/partial", "apt/archives/partial"):
                (CACHE / partial).mkdir(parents=True, exist_ok=True)
            _run("apt-get", *options, "update")
            _download(packages, debs, options)
        for deb in sorted(debs.glob("*.deb")):
            _run("dpkg", "-x", str(deb), str(fresh), cwd=debs)
    except subprocess.SubprocessError as error:
        told = getattr(error, "stderr", "") or ""
        missing(f"{' '.join(packages)} cannot be fetched: {error} {told.strip()[-300:]}")
    finally:
        shutil.rmtree(debs, ignore_errors=True)
    (fresh / ".complete").touch()
    shutil.rmtree(root, ignore_errors=True)
    fresh.rename(root)  # whole or not at all: a run that was killed leaves nothing half


def _download(packages: tuple[str, ...], folder: Path, options: tuple[str, ...]) -> None:
    _run("apt-get", *options, "download", *sorted(_wanted(packages, options)), cwd=folder)


def _wanted(packages: tuple[str, ...], options: tuple[str, ...]) -> set[str]:
    """`packages` and the dependencies that are not installed."""
    found, open_ = set(packages), list(packages)
    while open_:
        told = _run("apt-cache", *options, "depends", "--important", "--no-recommends", open_.pop())
        for line in told.splitlines():
            kind, _, name = line.strip().partition("Depends: ")
            if kind not in ("", "Pre") or not name or name.startswith("<") or name in found:
                continue
            if not _installed(name):
                found.add(name)
                open_.append(name)
    return found


def _installed(package: str) -> bool:
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status}\n", package]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    return "installed" in answer.stdout.split()


def _run(*command: str, cwd: Path | None = None) -> str:
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS)
    return answer.stdout


@contextmanager
def _locked() -> Iterator[None]:
    """One process at a time: tests run side by side, and apt refuses two of itself."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(unpacked(*sys.argv[1:]))
