"""One target under libFuzzer, in a process of its own that does nothing else.

It begins with what is known: cases that were found once, some of the strategy's, and some of the corpus that earlier
runs left in `fuzz-results/corpus/`. A fault does not end the run: it is shrunk, kept, and the same is not told again.
"""

import contextlib
import json
import os
import random
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import atheris
import fuzz_json
import hypothesis
from fuzz_forms import JSON
from fuzz_kept import RESULTS, keep, kept, kind_of
from fuzz_random import OverError
from fuzz_target import Target
from hypothesis import HealthCheck, Phase

CORPUS = RESULTS / "corpus"
#: Files of a target in there at most; which ones go is left to chance.
MOST_FILES = 400
ARTIFACTS = "ended-"
LOG, TOLD = "log", "told.json"
#: Inputs per second of the share with which a run begins, so that it does not spend its time on them.
KNOWN_PER_SECOND = 20
#: It is looked at every few seconds only, so that an input may take nearly twice as long.
HANG_SECONDS = 6
MEMORY_MB = 1024
SHRINK_SECONDS = 3.0
JSON_SHARE = 0.5
_COVERAGE = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)")


@dataclass
class Told:
    """What a run says of itself. `edges`: branches that were reached; `corpus`: inputs that each reach something of
    their own; `found`: files of what was found."""

    runs: int = 0
    edges: int = 0
    corpus: int = 0
    found: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        (folder / TOLD).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> "Told":
        """Of a run that did not end by itself: what is known of it all the same."""
        path = folder / TOLD
        told = cls(**json.loads(path.read_text())) if path.exists() else cls()
        if marks := _COVERAGE.findall((folder / LOG).read_text(errors="replace")):
            told.edges, told.corpus = map(int, marks[-1])
        return told


class Run:
    """`until`: monotonic."""

    def __init__(self, target: Target, folder: Path, until: float) -> None:
        self.target, self.folder, self.until = target, folder, until
        self.told = Told()
        self._seen: set[str] = set()

    def one(self, data: bytes) -> None:
        """What libFuzzer calls."""
        if time.monotonic() > self.until:
            self.end()
        self.told.runs += 1
        error = self._failure(data)
        if error is None or (kind := _place(error)) in self._seen:
            return
        self._seen.add(kind)
        smallest = shrink(data, lambda other: self._fails_as(other, kind), time.monotonic() + SHRINK_SECONDS)
        self.told.found.append(keep(self.target, self.target.form.read(smallest), self._failure(smallest) or error))
        self.told.write(self.folder)

    def end(self) -> None:
        self.told.write(self.folder)
        CORPUS.joinpath(self.target.name).mkdir(parents=True, exist_ok=True)
        for path in (self.folder / "new").iterdir():
            shutil.move(path, CORPUS / self.target.name / path.name)
        os._exit(0)

    def _failure(self, data: bytes) -> BaseException | None:
        try:
            case = self.target.form.read(data)
        except ValueError:
            return None
        try:
            self.target.check(case)
        except BaseException as error:
            return error
        return None

    def _fails_as(self, data: bytes, kind: str) -> bool:
        error = self._failure(data)
        return error is not None and _place(error) == kind


def run(target: Target, folder: Path, seconds: float, seed: int) -> None:
    """Does not return."""
    until = time.monotonic() + seconds
    new, known = folder / "new", folder / "known"
    new.mkdir()
    known.mkdir()
    # libFuzzer talks on the error output.
    os.dup2(os.open(folder / LOG, os.O_WRONLY | os.O_CREAT), 2)
    the_run, inputs = Run(target, folder, until), beginnings(target, seconds, seed)
    for number, data in enumerate(inputs):
        (known / str(number)).write_bytes(data)
    first = folder / f"{ARTIFACTS}first"  # what is left when it ends the process
    first.write_bytes(inputs[0])
    the_run.one(inputs[0])  # what is made once is made now: it is not the input that takes so long
    first.unlink()
    options: dict[str, object] = {
        "seed": seed,
        "timeout": HANG_SECONDS,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{folder}/{ARTIFACTS}",
    }
    if target.form.words:
        options["dict"] = words = folder / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.form.words))
    arguments = ["fuzz", *(f"-{name}={value}" for name, value in options.items()), str(new), str(known)]
    if JSON[0] in target.form.words:
        atheris.Setup(arguments, the_run.one, custom_mutator=mutator(target))
    else:
        atheris.Setup(arguments, the_run.one)
    atheris.Fuzz()


def mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    """Every second time the JSON in an input is changed as JSON; else bytes are, as libFuzzer does."""
    words = [word.decode().strip('":') for word in target.form.words if word[:1] == b'"' and word.isascii()]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        source = random.Random(seed)
        found = fuzz_json.change(data, source, words) if source.random() < JSON_SHARE else None
        return found if found is not None and len(found) <= most else atheris.Mutate(data, most)

    return mutate


def beginnings(target: Target, seconds: float, seed: int) -> list[bytes]:
    """Inputs to begin with: all that were found once, and of the others as many as a run of `seconds` has time for."""
    most = int(seconds * KNOWN_PER_SECOND)
    source = random.Random(seed)
    found = [target.form.write(case) for case in kept(target)]
    files = sorted(CORPUS.joinpath(target.name).glob("*"))
    source.shuffle(files)
    for path in files[MOST_FILES:]:
        path.unlink(missing_ok=True)
    examples = drawn(target, max(5, most // 4), seconds / 5, seed)
    return [*found, *examples, *(path.read_bytes() for path in files[: max(0, min(MOST_FILES, most - len(examples)))])]


def drawn(target: Target, most: int, seconds: float, seed: int) -> list[bytes]:
    """Cases of the target's strategy: as many as can be had in that time."""
    found: list[bytes] = []
    until = time.monotonic() + seconds

    def take(case: Any) -> None:
        found.append(target.form.write(case))
        if time.monotonic() > until:
            raise OverError

    test = hypothesis.settings(
        max_examples=most,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )(hypothesis.given(target.inputs)(take))
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(OverError):
        hypothesis.seed(seed)(test)()
    return found


def shrink(data: bytes, fails: Callable[[bytes], bool], until: float) -> bytes:
    """A shorter input that still fails: ever smaller pieces are left out, as long as there is time."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data) and time.monotonic() < until:
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _place(error: BaseException) -> str:
    """Which fault it is, without what the input has added to its text."""
    return kind_of(error).partition(": ")[0]


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
