"""Kubernetes from Debian's source package, built once and kept in the cache.

Debian's source package `kubernetes` is the whole upstream tree with its vendored dependencies, so nothing but the
distribution is needed. The five binaries end up in `<cache>/kubernetes-<version>-r<build>/`; the build tree (2 GB) is
kept only while the build has not succeeded, so that an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cluster_packages import BUILD_PACKAGES, download_source, install
from cluster_run import ClusterError, run, run_logged, say
from cluster_settings import KUBERNETES_BINARIES, KUBERNETES_VERSION, Settings

_NICENESS = 10  # the compiler takes every core there is, for minutes; people share this machine with it

# Debian's tree carries no git history, and without this the server would call itself v0.0.0: helm's
# `.Capabilities.KubeVersion` and every version check in a client would be wrong.
_VERSION_FILE = f"""\
KUBE_GIT_COMMIT='debian'
KUBE_GIT_TREE_STATE='clean'
KUBE_GIT_VERSION='v{KUBERNETES_VERSION}'
KUBE_GIT_MAJOR='{KUBERNETES_VERSION.split(".")[0]}'
KUBE_GIT_MINOR='{KUBERNETES_VERSION.split(".")[1]}'
"""


def is_built(settings: Settings) -> bool:
    """Whether the cache holds all binaries. They are moved in whole, so that existing means complete."""
    return all((settings.binaries / name).is_file() for name in KUBERNETES_BINARIES)


def build(settings: Settings) -> None:
    """Build what the cache does not have. About five minutes on two cores, the first time."""
    if is_built(settings):
        return
    settings.cache.mkdir(parents=True, exist_ok=True)
    log = settings.cache / "kubernetes-build.log"
    log.unlink(missing_ok=True)
    say(f"  building Kubernetes {KUBERNETES_VERSION} from Debian's source, once: 5 minutes on 2 cores. Log: {log}")
    install(BUILD_PACKAGES, log)
    work = settings.cache / f"build-{KUBERNETES_VERSION}"
    tree = _unpack(work, log)
    _mend(tree)
    _compile(tree, work, log)
    _keep(tree, settings.binaries)
    shutil.rmtree(work)


def _unpack(work: Path, log: Path) -> Path:
    tree = work / "tree"
    if tree.exists():
        return tree
    work.mkdir(parents=True, exist_ok=True)
    described = download_source("kubernetes", work, log)
    if KUBERNETES_VERSION not in described.name:
        raise ClusterError(f"apt has {described.name}, and this is written for Kubernetes {KUBERNETES_VERSION}")
    fresh = work / "tree.unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    run_logged(["dpkg-source", "-x", described, fresh], log, progress=lambda: "unpacking the source")
    fresh.rename(tree)
    return tree


def _mend(tree: Path) -> None:
    """Two things in the vendored code that Go 1.15, which Kubernetes 1.20 was written for, did not mind.

    reflect2 1.0.1 calls into Go's runtime with a signature that Go 1.18 changed: memory corruption wherever
    json-iterator walks a map, so that the API server crashes on the first custom resource that it is sent. Debian's
    1.0.2 replaces it.

    The schema validator takes a value for null when it shares its address with Go's zero value. With a newer Go an
    empty string does, and custom resources with one are refused.
    """
    _replace_reflect2(tree)
    validator = tree / "vendor" / "k8s.io" / "kube-openapi" / "pkg" / "validation" / "validate" / "type.go"
    shared_zero = " || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data))"
    for file in (validator, tree / "vendor" / "github.com" / "go-openapi" / "validate" / "type.go"):
        file.write_text(file.read_text().replace(shared_zero, ""))


def _replace_reflect2(tree: Path) -> None:
    source = Path("/usr/share/gocode/src/github.com/modern-go/reflect2")
    target = tree / "vendor" / "github.com" / "modern-go" / "reflect2"
    if (target / "go_above_118.go").exists():
        return
    for file in target.glob("*.go"):
        file.unlink()
    for file in source.iterdir():
        if file.suffix in (".go", ".s") and not file.name.endswith("_test.go"):
            shutil.copy2(file, target / file.name)


def _compile(tree: Path, work: Path, log: Path) -> None:
    inside = tree / ".go" / "src" / "k8s.io" / "kubernetes"
    inside.parent.mkdir(parents=True, exist_ok=True)
    if not inside.is_symlink():
        inside.symlink_to("../../..")
    version_file = work / "version.sh"
    version_file.write_text(_VERSION_FILE)
    env = {
        **os.environ,
        "GOPATH": str(tree / ".go"),
        "GOCACHE": str(work / "gocache"),
        "GOFLAGS": "-v",  # names each package as it is compiled: the only sign of life there is
        "CGO_ENABLED": "0",
        "KUBE_GIT_VERSION_FILE": str(version_file),
        "PWD": str(inside),  # make's shell functions compare it with GOPATH; the real path lies outside
    }
    env.pop("GOROOT", None)
    targets = " ".join(f"cmd/{name}" for name in KUBERNETES_BINARIES)
    run_logged(
        ["make", "GOLDFLAGS=-s -w", f"WHAT={targets}"],
        log,
        env=env,
        cwd=inside,
        progress=lambda: f"compiling, {_compiled(log)} packages done",
        priority=_NICENESS,
    )


def _compiled(log: Path) -> int:
    """How many packages the log says were compiled: lines that are a bare import path."""
    with log.open(errors="replace") as lines:
        return sum(1 for line in lines if "/" in line and " " not in line.strip() and not line.startswith("/"))


def _keep(tree: Path, target: Path) -> None:
    built = tree / "_output" / "bin"
    if not built.is_dir():
        built = tree / "_output" / "local" / "go" / "bin"
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name in KUBERNETES_BINARIES:
        shutil.copy2(built / name, fresh / name)
    told = run([fresh / "kubelet", "--version"]).strip()
    if KUBERNETES_VERSION not in told:
        raise ClusterError(f"the kubelet that was built calls itself {told!r}, not {KUBERNETES_VERSION}")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
