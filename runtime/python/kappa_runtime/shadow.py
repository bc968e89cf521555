"""A function's own module may be named like one of Python's: `json.py`, `types.py`, `email/`.

Python would either hand the function the standard module (because the runtime has imported it already) or break every
library that wants the standard one. Here both get what they mean: code in the function's folder gets the function's
module, everything else the standard one. The same holds for copies of `httptools`, `uvloop` or `kappa_runtime` in the
folder.

Names that are built into the interpreter (`sys`, `time`, `os`, ...) win in any Python; they cannot be replaced here
either.

The cost is a wrapper around `__import__`, set only when a name really is taken twice.
"""

import builtins
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.machinery import BuiltinImporter, FrozenImporter, all_suffixes
from types import ModuleType
from typing import Any

import httptools

import kappa_api

OURS = ("httptools", "uvloop", "kappa_api", "kappa_runtime")
_PLATFORM_DIRS = tuple(
    {
        os.path.dirname(os.path.abspath(os.__file__)) + os.sep,
        os.path.join(sys.prefix, ""),
        os.path.dirname(os.path.abspath(__file__)) + os.sep,
        os.path.dirname(os.path.abspath(kappa_api.__file__ or "")) + os.sep,
        os.path.dirname(os.path.abspath(httptools.__file__)) + os.sep,
    }
)


def top_level_names(code_dir: str) -> set[str]:
    """The modules and packages that the folder offers at its top."""
    suffixes = tuple(all_suffixes())
    names = set()
    for entry in os.scandir(code_dir):
        if entry.is_dir():
            # A folder without __init__ is a namespace package: a real module of that name goes before it.
            if any(os.path.exists(os.path.join(entry.path, f"__init__{suffix}")) for suffix in suffixes):
                names.add(entry.name)
        elif entry.name.endswith(suffixes):
            names.add(entry.name.partition(".")[0])
    return names


def is_built_in(name: str) -> bool:
    """Whether the interpreter itself holds this module, so that no file can stand in for it."""
    return name == "__main__" or bool(BuiltinImporter.find_spec(name) or FrozenImporter.find_spec(name))


def taken_twice(names: set[str]) -> set[str]:
    return {name for name in names if (name in sys.stdlib_module_names or name in OURS) and not is_built_in(name)}


class Shadowing:
    """Gives the modules called `names` to code in `code_dir`, and the platform's own to everybody else's."""

    def __init__(self, names: set[str], code_dir: str) -> None:
        self._names, self._dir = frozenset(names), os.path.join(code_dir, "")
        self._original = builtins.__import__
        self._real: dict[str, ModuleType] = {}
        self._lock = threading.RLock()
        self._swapped = False

    def install(self) -> None:
        self._real = self._take()
        builtins.__import__ = self._import

    def uninstall(self) -> None:
        """For tests."""
        builtins.__import__ = self._original
        self._take()
        sys.modules.update(self._real)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        whole = name if not level or globals is None else str(globals.get("__package__") or "")
        if whole.partition(".")[0] not in self._names or not self._is_platform(globals):
            return self._original(name, globals, locals, fromlist or (), level)
        if level == 0:
            module = self._real.get(name)
            if module is not None:
                if not fromlist:
                    return self._real[name.partition(".")[0]]
                if all(hasattr(module, item) for item in fromlist):
                    return module
        return self._import_real(name, globals, locals, fromlist or (), level)

    def _import_real(self, name: str, *rest: Any) -> ModuleType:
        with self._lock:
            if self._swapped:
                return self._original(name, *rest)
            self._swapped = True
            path = list(sys.path)
            users = self._take()
            sys.modules.update(self._real)
            sys.path[:] = [entry for entry in path if not os.path.join(entry, "").startswith(self._dir)]
            try:
                return self._original(name, *rest)
            finally:
                self._real.update(self._take())
                sys.modules.update(users)
                sys.path[:] = path
                self._swapped = False

    def _take(self) -> dict[str, ModuleType]:
        """Takes the modules of these names out of sys.modules."""
        keys = [key for key in list(sys.modules) if key.partition(".")[0] in self._names]
        return {key: sys.modules.pop(key) for key in keys}

    def _is_platform(self, globals: Mapping[str, Any] | None) -> bool:
        if globals is None:
            return False
        file = globals.get("__file__")
        if isinstance(file, str):
            return not file.startswith(self._dir) and file.startswith(_PLATFORM_DIRS)
        return str(globals.get("__name__", "")).partition(".")[0] in sys.stdlib_module_names - self._names
