"""`make cluster`, `make cluster-down` and what end-to-end tests need beside them, as one command.

Run as `python tests/cluster/kappa_cluster.py COMMAND`; `--help` tells the commands, README.md what they do.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import cluster_images
import cluster_lifecycle
import cluster_tools
from cluster_run import ClusterError, Steps, say
from cluster_settings import BASE_IMAGE, Settings, load


def _up(settings: Settings, given: argparse.Namespace) -> int:
    cluster_lifecycle.up(settings, given.fresh)
    return 0


def _down(settings: Settings, given: argparse.Namespace) -> int:
    cluster_lifecycle.down(settings, given.all)
    return 0


def _status(settings: Settings, _: argparse.Namespace) -> int:
    return 0 if cluster_lifecycle.status(settings) else 1


def _base_image(settings: Settings, given: argparse.Namespace) -> int:
    steps = Steps()
    with steps.step(given.name):
        cluster_images.base_image(settings, given.name, given.include.split(",") if given.include else ())
    return 0


def _build(settings: Settings, given: argparse.Namespace) -> int:
    wanted = cluster_images.Build(
        given.name,
        given.context.absolute(),
        given.file.absolute() if given.file else None,
        tuple(given.build_arg),
        given.target,
    )
    steps = Steps()
    with steps.step(f"{given.name} built"):
        name = cluster_images.build(settings, wanted)
    if not settings.containerd_socket.exists():
        say("  No cluster of ours is up: not imported.")
        return 0
    with steps.step(f"{given.name} imported"):
        if not cluster_images.bring_in(settings, name):
            say("  The cluster has it already.")
    return 0


def _import(settings: Settings, given: argparse.Namespace) -> int:
    steps = Steps()
    with steps.step(f"{given.image} imported"):
        if Path(given.image).is_file():
            cluster_images.import_archive(settings, Path(given.image))
        else:
            cluster_images.bring_in(settings, given.image)
    return 0


def _tools(settings: Settings, _: argparse.Namespace) -> int:
    say(str(cluster_tools.install_tools(settings)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kappa_cluster", description="A real Kubernetes on a bare Debian 12 machine.")
    parser.add_argument("--state", type=Path, help="state folder (default: $KAPPA_CLUSTER_STATE, else .cluster/ here)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", help="start the cluster, or say that there is one")
    command.add_argument("--fresh", action="store_true", help="replace a cluster that runs, ignore KUBECONFIG")
    command.set_defaults(run=_up)

    command = commands.add_parser("down", help="stop it and remove every trace but the cache")
    command.add_argument("--all", action="store_true", help="also when it was started from another work tree")
    command.set_defaults(run=_down)

    command = commands.add_parser("status", help="what runs; fails unless all of it does")
    command.set_defaults(run=_status)

    command = commands.add_parser("base-image", help="make the local Python base image")
    command.add_argument("--name", default=BASE_IMAGE)
    command.add_argument("--include", default="", help="further Debian packages, by commas (use another --name then)")
    command.set_defaults(run=_base_image)

    command = commands.add_parser("build", help="build an image and bring it into the cluster")
    command.add_argument("name", metavar="NAME:TAG")
    command.add_argument("context", type=Path)
    command.add_argument("-f", "--file", type=Path, help="Dockerfile (default: the one in the context)")
    command.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    command.add_argument("--target", default="", help="stage to build")
    command.set_defaults(run=_build)

    command = commands.add_parser("import", help="bring an image that was built, or a `docker save` archive, in")
    command.add_argument("image", metavar="NAME:TAG|ARCHIVE")
    command.set_defaults(run=_import)

    command = commands.add_parser("tools", help="have kubectl and helm, print the folder they are in")
    command.set_defaults(run=_tools)
    return parser


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """The command's entry; returns the exit status."""
    given = _parser().parse_args()
    signal.signal(signal.SIGTERM, _on_sigterm)  # a CI's time limit: end the children, keep the records for `down`
    try:
        code: int = given.run(load(given.state), given)
    except ClusterError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. `down` removes what was started; `up` does so too before it starts again.", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
