"""Command line of the embedded cluster: `serve` is the cluster alone; `up`, `down` and `demo` are the whole
platform on it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from kappa_local.cluster import Cluster, ClusterError, Settings, serve
from kappa_local.kubelet import images
from kappa_local.kubelet.addresses import NoNetworkError
from kappa_local.platform import commands as platform

DEFAULT_PORT = 7443
DEFAULT_IMAGES = {"kappa-runtime-python": "python -m kappa_runtime"}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m kappa_local", description="A small Kubernetes on this machine: pods are processes."
    )
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("serve", help="run the cluster until Ctrl-C; nothing is kept afterwards")
    run.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help="port of the API on 127.0.0.1; 0 takes a free one (default %(default)s)",
    )
    run.add_argument(
        "--state-dir",
        type=Path,
        default=Path(".kappa-local"),
        help="kubeconfig, pod directories and logs (default %(default)s)",
    )
    run.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="NAME=CMD",
        help="the command that stands for an image; may be repeated",
    )
    run.add_argument(
        "--token", help="require this bearer token (client libraries send it; kubectl does not, over plain HTTP)"
    )
    run.add_argument("--verbose", action="store_true", help="log more")
    for name, text in platform.COMMANDS.items():
        commands.add_parser(name, help=text)
    return top


def settings(args: argparse.Namespace) -> Settings:
    """Raises ValueError for an --image that is not NAME=COMMAND."""
    table = dict(images.parse(f"{name}={command}") for name, command in DEFAULT_IMAGES.items())
    table.update(images.parse(text) for text in args.image)
    return Settings(state_dir=args.state_dir.resolve(), port=args.port, token=args.token, images=table)


def announce(cluster: Cluster) -> None:
    print(f"ready {cluster.url} kubeconfig {cluster.kubeconfig}", flush=True)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.command in platform.COMMANDS:
        return platform.run(args)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        asyncio.run(serve(settings(args), announce))
    except (ClusterError, NoNetworkError, ValueError) as e:
        print(f"kappa_local: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
