"""Byte code that travels with a revision, so that it is compiled once and not in every instance.

The first instance is asked for what it compiled; later ones are given it. Both sides lean on Python's own import
system: the byte code lies in `__pycache__` as a *checked* hash-based .pyc (PEP 552), which Python uses only when the
hash inside is that of the source as it lies there at that moment. Code that rewrites its own files is compiled anew,
and no byte code can stand in for another source. (Unchecked ones would save reading the source, less than 1 % of what
compiling costs.) Python also puts the file names right, so tracebacks are the same.

It is taken right after the load, before the instance serves: nothing that a caller sends can have touched it.
"""

import os
import sys
from collections.abc import Mapping
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash

from kappa_api.wire import ByteCode

#: Smaller files are compiled faster than their byte code is written and read.
MIN_SOURCE_BYTES = 2048
#: All of a revision's byte code; what goes beyond is compiled by every instance.
MAX_BYTES = 8 << 20
#: Of a .pyc: magic number, flags (hash-based, checked), hash of the source.
_START = MAGIC_NUMBER + (0b11).to_bytes(4, "little")
_HEADER_BYTES = 16


def tag() -> str:
    """Names this Python's byte code."""
    return f"{sys.implementation.cache_tag}-{MAGIC_NUMBER.hex()}-{sys.flags.optimize}"


def deliver(code_dir: str, files: Mapping[str, bytes], byte_code: ByteCode) -> set[str]:
    """Puts byte code beside the files it belongs to, and returns their paths. What does not fit is left out."""
    if byte_code.tag != tag():
        return set()
    delivered = set()
    for path, data in byte_code.files.items():
        source = files.get(path)
        fits = source is not None and path.endswith(".py") and data.startswith(_header(source))
        if fits and len(data) > _HEADER_BYTES and _write(code_dir, path, data):
            delivered.add(path)
    return delivered


class Recording:
    """Lets Python write down what it compiles of these files while it is imported.

    Python writes a hash-based .pyc where it finds one that does not fit the source. So each file gets one without code
    and with a hash that fits nothing.
    """

    def __init__(self, code_dir: str, files: Mapping[str, bytes], delivered: set[str]) -> None:
        self._dir = code_dir
        self._paths = []
        for path, source in files.items():
            wanted = path.endswith(".py") and len(source) >= MIN_SOURCE_BYTES and path not in delivered
            if wanted and _write(code_dir, path, _header(source + b"#")):
                self._paths.append(path)
        self._before = sys.dont_write_bytecode
        if self._paths:
            sys.dont_write_bytecode = False

    def stop(self) -> None:
        """Python writes no more. To be called however the load ends."""
        sys.dont_write_bytecode = self._before

    def collect(self) -> ByteCode | None:
        """What was compiled."""
        found: dict[str, bytes] = {}
        size = 0
        for path in self._paths:
            target = cache_from_source(os.path.join(self._dir, path))
            try:
                with open(target, "rb") as file:
                    data = file.read(MAX_BYTES + 1)
                if len(data) <= _HEADER_BYTES:
                    os.unlink(target)
                elif data.startswith(_START) and size + len(data) <= MAX_BYTES:
                    found[path] = data
                    size += len(data)
            except OSError:
                pass  # the code has removed its own files
        return ByteCode(tag(), found) if found else None


def _header(source: bytes) -> bytes:
    return _START + source_hash(source)


def _write(code_dir: str, path: str, data: bytes) -> bool:
    """Writes beside the source. False when it cannot be: the code's own .pyc stays, a full disk is no failure."""
    target = cache_from_source(os.path.join(code_dir, *path.split("/")))
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb") as file:
            file.write(data)
    except OSError:
        return False
    return True
