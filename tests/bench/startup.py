"""How long a pool pod takes to load a function: with and without modules imported ahead, with and without byte code.

    python tests/bench/startup.py [samples]

Each sample is a runtime process of its own. Load times are the runtime's own (`loaded revision` in its log) for
modules, and the caller's (PUT until its answer) for byte code. Medians.
"""

import base64
import http.client
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from world import HELLO, free_port

HOST, TOKEN = "127.0.0.1", "bench"
TYPICAL = (
    "import base64, csv, dataclasses, datetime, decimal, hashlib, hmac, io, json, logging, os, pathlib, random, re\n"
    "import tempfile, time, typing, urllib.parse, urllib.request, uuid, zoneinfo\n"
    "from concurrent.futures import ThreadPoolExecutor\n"
    "from email.mime.text import MIMEText\n"
)
Files = dict[str, bytes]


class Runtime:
    """One runtime process, ready and with its modules imported."""

    def __init__(self, folder: str, preload: int) -> None:
        self.port = free_port()
        own = {"POD_IP": HOST, "PORT": str(self.port), "KAPPA_POD_TOKEN": TOKEN, "TMPDIR": folder}
        own |= {"KAPPA_RUNTIME_PRELOAD": str(preload), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "kappa_runtime"]
        self.child = subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE)
        self.log("common modules" if preload else "listening")

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(self, *exc: object) -> None:
        self.child.terminate()
        self.child.communicate()

    def log(self, text: str) -> dict[str, Any]:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            found: dict[str, Any] = json.loads(line)
            if text in found["message"]:
                return found
        raise RuntimeError(f"the runtime ended without {text!r}")

    def specialize(self, files: Files, **more: object) -> tuple[float, dict[str, Any]]:
        """Milliseconds, and the answer."""
        coded = {path: base64.b64encode(data).decode() for path, data in files.items()}
        function = {"namespace": "default", "name": "bench"}
        what = {"function": function, "revision": "r1", "handler": "main.handler", "signature": "event"}
        body = json.dumps({**what, "files": coded, **more})
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        begun = time.perf_counter()
        connection.request("PUT", "/_kappa/revision", body, {"authorization": f"Bearer {TOKEN}"})
        reply = connection.getresponse()
        data = reply.read()
        seconds = time.perf_counter() - begun
        assert reply.status == 200, data
        return seconds * 1000, json.loads(data)

    def megabytes(self) -> float:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def tree(size: int) -> Files:
    """So many bytes of real source in many modules: the standard library's, inside functions, so that importing them
    compiles everything and runs nothing."""
    files: Files = {"lib/__init__.py": b""}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        if sum(map(len, files.values())) >= size:
            break
        lines = path.read_bytes().splitlines()
        body = b"def everything():\n" + b"\n".join(b"    " + line for line in lines) + b"\n    pass\n"
        try:
            compile(body, path.name, "exec")
        except SyntaxError:  # star imports and __future__ are for modules only
            continue
        files[f"lib/{path.name}"] = body
    names = [path[4:-3] for path in files if path != "lib/__init__.py"]
    files["main.py"] = "".join(f"import lib.{name}\n" for name in names).encode() + HELLO.encode()
    return files


def modules(samples: int) -> None:
    for name, code in (("hello", HELLO), ("typical imports", TYPICAL + HELLO)):
        loads: dict[int, list[float]] = {0: [], 1: []}
        memory: dict[int, list[float]] = {0: [], 1: []}
        for _ in range(samples):
            for preload in (0, 1):
                with tempfile.TemporaryDirectory() as folder, Runtime(folder, preload) as runtime:
                    runtime.specialize({"main.py": code.encode()})
                    loads[preload].append(runtime.log("loaded revision")["milliseconds"])
                    memory[preload].append(runtime.megabytes())
        for preload, what in ((0, "nothing imported ahead"), (1, "imported ahead")):
            load, megabytes = statistics.median(loads[preload]), statistics.median(memory[preload])
            print(f"{name}, {what}: {load:.1f} ms, {megabytes:.1f} MiB")


def byte_code(samples: int) -> None:
    for size in (40_000, 400_000, 1_500_000):
        files = tree(size)
        times: dict[str, list[float]] = {"compiled": [], "compiled and answered": [], "given": []}
        code: dict[str, Any] = {}
        for _ in range(samples):
            for what, more in (("compiled", {}), ("compiled and answered", {"wantByteCode": True}), ("given", None)):
                with tempfile.TemporaryDirectory() as folder, Runtime(folder, 1) as runtime:
                    taken, answer = runtime.specialize(files, **({"byteCode": code} if more is None else more))
                    times[what].append(taken)
                    code = answer.get("byteCode", code)
        total = sum(map(len, files.values()))
        found = ", ".join(f"{what} {statistics.median(taken):.0f} ms" for what, taken in times.items())
        print(f"{total / 1e6:.2f} MB in {len(files)} files: {found}")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    modules(count)
    byte_code(count)
