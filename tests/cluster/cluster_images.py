"""Images without a registry: a Debian base with Python, builds with buildah, import into the cluster's containerd.

buildah's storage is in the cache. What a test needs is built once and stays there; `down` removes only containerd's
copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cluster_containerd
from cluster_packages import IMAGE_PACKAGES, install, release, write_sources
from cluster_pip import build_volumes
from cluster_run import ClusterError, run, run_logged, say
from cluster_settings import BASE_IMAGE, Settings

_BASE_PACKAGES = ("python3", "python3-pip", "python3-venv", "ca-certificates")
_ID_LABEL = "kappa.dev/image-id"
_RECIPE_LABEL = "dev.kappa.recipe"

# Makes Debian's Python look like the image `python:3.x-slim`, so that one Dockerfile fits both: `python` and `pip` are
# on the path, and pip may install into the system. (`$1` is the new root.)
_LIKE_PYTHON_SLIM = (
    'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
    'ln -sf ../../bin/python3 "$1/usr/local/bin/python"',
    'touch "$1/etc/pip.conf"',  # where builds mount the machine's pip settings: so no image gets a file of its own
    'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*',
)
_BASE_DOCKERFILE = """\
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
"""


@dataclass(frozen=True)
class Build:
    """What to build: the same things that `docker build` takes."""

    name: str
    context: Path
    dockerfile: Path | None = None
    arguments: tuple[str, ...] = ()
    target: str = ""


def full_name(name: str) -> str:
    """The name as containerd and the kubelet write it: with registry, namespace and tag, by Docker's rules."""
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        raise ClusterError(f"{name}: give the image a tag (and not `latest`: Kubernetes would try to pull it)")
    first, slash, _ = repository.partition("/")
    if not slash:
        repository = f"docker.io/library/{repository}"
    elif "." not in first and ":" not in first and first != "localhost":
        repository = f"docker.io/{repository}"
    return f"{repository}:{tag}"


def buildah(settings: Settings) -> list[str]:
    """The command with our own storage. `$STORAGE_DRIVER` may name another driver where overlay does not work."""
    driver = os.environ.get("STORAGE_DRIVER", "overlay")
    command = ["buildah", "--root", str(settings.images), "--runroot", "/run/kappa-buildah", "--storage-driver", driver]
    if driver == "overlay":  # no mount of the storage onto itself, which would stay for as long as the machine runs
        command += ["--storage-opt", "overlay.skip_mount_home=true"]
    return command


def image_id(settings: Settings, name: str) -> str | None:
    """The id of an image in buildah's storage, or None."""
    command = [*buildah(settings), "inspect", "--type", "image", "--format", "{{.FromImageID}}", name]
    return run(command, check=False).strip() or None


def base_image(settings: Settings, name: str = BASE_IMAGE, include: Sequence[str] = ()) -> str:
    """Make the base image if it is not there. `include`: further Debian packages. Returns its full name."""
    name = full_name(name)
    log = settings.cache / "base-image.log"
    install(IMAGE_PACKAGES, log)
    packages = sorted({*_BASE_PACKAGES, *include})
    recipe = hashlib.sha256("\n".join([*packages, *_LIKE_PYTHON_SLIM, _BASE_DOCKERFILE]).encode()).hexdigest()[:12]
    label = '{{index .OCIv1.Config.Labels "' + _RECIPE_LABEL + '"}}'
    have = run([*buildah(settings), "inspect", "--type", "image", "--format", label, name], check=False).strip()
    if have == recipe:
        return name
    archive = _bootstrap(settings, packages, recipe, log)
    with tempfile.TemporaryDirectory(dir=settings.cache) as folder:
        os.link(archive, Path(folder, "base.tar"))
        Path(folder, "Dockerfile").write_text(_BASE_DOCKERFILE)
        flags = ["--isolation", "chroot", "--label", f"{_RECIPE_LABEL}={recipe}", "--tag", name]
        run_logged([*buildah(settings), "bud", *flags, folder], log, progress=lambda: "packing the base image")
    return name


def _bootstrap(settings: Settings, packages: Sequence[str], recipe: str, log: Path) -> Path:
    """The root file system as a tar, from the machine's own Debian repositories."""
    archive = settings.cache / f"base-{recipe}.tar"
    if archive.exists():
        return archive
    say(f"  making a base image with {', '.join(packages)}, once; about a minute. Log: {log}")
    settings.cache.mkdir(parents=True, exist_ok=True)
    sources = write_sources(settings.cache / "base-image.sources", "deb")
    fresh = settings.cache / f"base-{recipe}.new.tar"  # mmdebstrap tells the format by the name's end
    fresh.unlink(missing_ok=True)
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")]
    hooks = [f"--customize-hook={hook}" for hook in _LIKE_PYTHON_SLIM]
    suite = release()["VERSION_CODENAME"]
    flags = ["--variant=minbase", f"--include={','.join(packages)}", *left_out, *hooks]
    command: list[str | Path] = ["mmdebstrap", *flags, suite, fresh, sources]
    run_logged(command, log, progress=lambda: "installing Debian into the base image")
    fresh.rename(archive)
    return archive


def build(settings: Settings, wanted: Build) -> str:
    """Build an image with `buildah bud --isolation chroot`; returns its full name.

    The build argument BASE is the local base image unless the caller gives one. pip inside the build uses this
    machine's index settings (`cluster_pip`). Layers are cached: an unchanged image takes a second.
    """
    name = full_name(wanted.name)
    arguments = list(wanted.arguments)
    if not any(argument.startswith("BASE=") for argument in arguments):
        arguments.append(f"BASE={base_image(settings)}")
    log = settings.cache / f"image-{name.replace('/', '_').replace(':', '_')}.log"  # its own: builds may run at once
    log.unlink(missing_ok=True)
    flags = ["--isolation", "chroot", "--layers", "--force-rm", "--format", "docker", "--pull-never", "--tag", name]
    for argument in arguments:
        flags += ["--build-arg", argument]
    if wanted.dockerfile:
        flags += ["--file", str(wanted.dockerfile)]
    if wanted.target:
        flags += ["--target", wanted.target]
    with build_volumes() as volumes:
        for volume in volumes:
            flags += ["--volume", volume]
        command = [*buildah(settings), "bud", *flags, str(wanted.context)]
        run_logged(command, log, progress=lambda: f"building {wanted.name}")
    return name


def bring_in(settings: Settings, name: str) -> bool:
    """Import an image of buildah's storage into the cluster. False when exactly this image is there already."""
    name = full_name(name)
    identity = image_id(settings, name)
    if identity is None:
        raise ClusterError(f"{name} is not in the local image storage; build it first")
    if _imported_id(settings, name) == identity:
        return False
    with tempfile.TemporaryDirectory(dir=settings.cache) as folder:
        archive = Path(folder, "image.tar")
        run([*buildah(settings), "push", "--quiet", identity, f"docker-archive:{archive}:{name}"])
        import_archive(settings, archive)
    cluster_containerd.ctr(settings, "images", "label", name, f"{_ID_LABEL}={identity}")
    return True


def import_archive(settings: Settings, archive: Path) -> None:
    """Import a `docker save` archive into the cluster, under the names it carries."""
    cluster_containerd.ctr(settings, "images", "import", archive)


def _imported_id(settings: Settings, name: str) -> str | None:
    listing = cluster_containerd.ctr(settings, "images", "ls", f"name=={name}")
    for line in listing.splitlines():
        with contextlib.suppress(IndexError):
            if line.split()[0] == name:
                for label in line.split()[-1].split(","):
                    key, _, value = label.partition("=")
                    if key == _ID_LABEL:
                        return value
    return None
