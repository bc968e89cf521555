"""Which command stands for an image. There is no registry here: images are names for programs on this machine. Pure."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence

from kappa_local.types import Obj


class UnknownImageError(Exception):
    """No command is known for the image (waiting reason ErrImagePull)."""


def repository(image: str) -> str:
    """`registry:5000/team/name:tag@sha256:...` -> `name`."""
    return image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]


def command(container: Obj, table: Mapping[str, Sequence[str]]) -> list[str]:
    """The command line of a container before $(VAR) expansion: its own command, else what the table has for its
    image.
    """
    own = list(container.get("command") or ())
    args = list(container.get("args") or ())
    if own:
        return [_python(own[0]), *own[1:], *args]
    image = str(container.get("image") or "")
    entry = table.get(image) or table.get(repository(image))
    if entry is None:
        known = ", ".join(sorted(table)) or "none"
        raise UnknownImageError(
            f'kappa_local cannot run image "{image}": it runs programs of this machine, not containers. '
            f"Known images: {known}. Give the container a command, or name one with "
            f"--image {repository(image) or 'NAME'}=COMMAND"
        )
    return [_python(entry[0]), *entry[1:], *args]


def _python(program: str) -> str:
    """`python` and `python3` are the interpreter that runs kappa_local, wherever they are said to be."""
    return sys.executable if program.rsplit("/", 1)[-1] in ("python", "python3") else program


def parse(text: str) -> tuple[str, list[str]]:
    """`NAME=COMMAND WITH ARGS` from the command line."""
    name, equals, line = text.partition("=")
    words = shlex.split(line)
    if not equals or not name or not words:
        raise ValueError(f"--image wants NAME=COMMAND, not {text!r}")
    return name, words
