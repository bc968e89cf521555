"""The real `kubectl`, run as a subprocess: the platform is set up and shown with the tool that its users have."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kappa_local.platform.settings import SetupError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run of kubectl printed; `ok` is whether it exited with 0."""

    ok: bool
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams, for people."""
        return (self.out + self.err).rstrip()


class Kubectl:
    """`kubectl` against one kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._env = os.environ | {"KUBECONFIG": str(kubeconfig)}
        self._program = _find()

    async def run(self, arguments: Sequence[str], stdin: str = "") -> Answer:
        """Runs kubectl with these arguments; never raises for a failing command."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            env=self._env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        return Answer(process.returncode == 0, out.decode(errors="replace"), err.decode(errors="replace"))

    async def apply(self, objects: Sequence[Json]) -> None:
        """Applies objects. Raises SetupError with what kubectl said."""
        answer = await self.run(["apply", "-f", "-"], "\n---\n".join(json.dumps(item) for item in objects))
        if not answer.ok:
            raise SetupError(f"kubectl apply failed: {answer.text}")


def _find() -> str:
    """The kubectl beside this interpreter (pinned by the lock file), else the one on the PATH."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if not found:
        raise SetupError("kubectl was not found: run `make venv`, which installs it")
    return found
