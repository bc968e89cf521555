"""Inputs that once broke the program, one file each in `kept/`: `make fuzz` writes them, every run and every test run
tries them again. Where the fault was goes to `fuzz-results/` beside it, which nobody has to keep."""

import hashlib
import math
import os
import traceback
from pathlib import Path
from typing import Any

from fuzz_target import Target

KEPT = Path(__file__).with_name("kept")
RESULTS = Path("fuzz-results")
#: JSON of Python has numbers that are no literals.
_NAMES = {"__builtins__": {}, "inf": math.inf, "nan": math.nan}


def kept(target: Target) -> list[Any]:
    """The cases of this target: those in its definition, then those in files."""
    files = (path.read_text().split("\n", 2) for path in sorted(KEPT.glob("*.txt")))
    return [*target.found, *(eval(lines[1], dict(_NAMES)) for lines in files if lines[0] == target.name)]


def kind_of(error: BaseException) -> str:
    """Which fault it is, in one line: two inputs that fail in the same way at the same place show the same one."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = str(error).splitlines()[0][:160] if str(error) else ""
    return f"{type(error).__name__}{where}: {text}"


def keep(target: Target, case: Any, error: BaseException) -> str:
    """Writes and prints what was found; returns the path of the file with the case."""
    return _keep(target, case, kind_of(error), "".join(traceback.format_exception(error)))


def keep_fatal(target: Target, case: Any, how: str) -> str:
    """The same for an input that ended the process."""
    return _keep(target, case, how, how)


def _keep(target: Target, case: Any, kind: str, told: str) -> str:
    KEPT.mkdir(exist_ok=True)
    RESULTS.mkdir(exist_ok=True)
    kind, text = ascii(kind)[1:-1], ascii(case)
    name = f"{target.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.txt"
    (KEPT / name).write_text(f"{target.name}\n{text}\n{kind}\n")
    (RESULTS / name).write_text(f"{target.name}\n{text}\n\n{told}", errors="backslashreplace")
    path = os.path.relpath(KEPT / name)
    print(f"FOUND  {target.name}: {kind}\n       {text[:2000]}\n       {path}", flush=True)
    return path
