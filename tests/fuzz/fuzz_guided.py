"""Starts `guided.py` beside everything else that `make fuzz` does, where atheris is, and waits for its results."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("guided.py")
#: Faults are shrunk and kept, and hanging processes given up, after the time is over.
GRACE_SECONDS = 15.0


def missing() -> str:
    """Why nothing can be guided by coverage here, or an empty string."""
    if importlib.util.find_spec("atheris") is not None:
        return ""
    return "no atheris here (it needs CPython 3.11 to 3.13 on x86-64 Linux): nothing is guided by coverage"


class Guided:
    """Runs from the moment it is made until `until` (monotonic). A processor is left to the rest of `make fuzz`."""

    def __init__(self, until: float, seed: int, only: str) -> None:
        self._until = until
        self._folder = tempfile.TemporaryDirectory(prefix="kappa-fuzz-")
        self._results = Path(self._folder.name, "results.json")
        lanes = max(1, (os.cpu_count() or 1) - 1)
        options = {"until": until, "seed": seed, "only": only, "lanes": lanes, "results": self._results}
        command = [sys.executable, str(PROGRAM), *(f"--{name}={value}" for name, value in options.items())]
        self._process = subprocess.Popen(command, start_new_session=True)

    def results(self) -> dict[str, dict[str, Any]]:
        """By target; waits for them. Raises RuntimeError when the program has failed."""
        try:
            status = self._process.wait(max(0.0, self._until - time.monotonic()) + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.stop()
            raise RuntimeError("the guided runs did not end") from None
        if status:
            raise RuntimeError(f"the guided runs ended with {status}")
        return json.loads(self._results.read_text())

    def stop(self) -> None:
        """Ends it with all that it has started, if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._folder.cleanup()
