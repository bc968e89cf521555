"""From a specialize message to a handler that can be called: write the files, arrange the imports, import, check.

Whatever the function's code does while it is imported ends in a `LoadFailedError` with the author's file and line: it
does not compile, it raises, it calls `sys.exit`, the handler is not there or cannot be called. (That it never ends is
the caller's concern, which runs `load` on a thread with a deadline.)
"""

import gc
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kappa_api.wire import ByteCode, LoadError, Specialize
from kappa_runtime import bytecode
from kappa_runtime.preload import follow_environment
from kappa_runtime.shadow import Shadowing, is_built_in, taken_twice, top_level_names
from kappa_runtime.tracebacks import Report

Kind = Literal["sync", "async", "asgi"]
ASGI_ARGUMENTS = ("scope", "receive", "send")
EVENT_ARGUMENTS = ("event", "context")


class LoadFailedError(Exception):
    """The code does not load; `error` is what the operator shows to its author."""

    def __init__(self, error: LoadError) -> None:
        self.error = error
        super().__init__(f"{error.type}: {error.message}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A handler that is ready. `warnings` are for the log."""

    kind: Kind
    handler: Callable[..., Any]
    code_dir: str
    warnings: tuple[str, ...] = ()


def make_code_dir(temp_dir: str, revision: str) -> str:
    """A folder that nothing else uses: `<temp>/kappa/code/<revision>`, or with a number behind it when that is
    taken."""
    parent = os.path.join(temp_dir, "kappa", "code")
    os.makedirs(parent, exist_ok=True)
    for number in range(10_000):
        path = os.path.join(parent, revision + (f".{number}" if number else ""))
        try:
            os.mkdir(path)
        except FileExistsError:
            continue
        return os.path.realpath(path)
    raise OSError(f"no free folder below {parent}")


def write_files(code_dir: str, files: Mapping[str, bytes]) -> None:
    """Writes the code. Raises LoadFailedError for a path that leads out of the folder or that cannot be written."""
    for path, data in files.items():
        parts = path.split("/")
        if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise _failure("BadPath", f"{path!r} is not a path inside the code folder: use relative paths without '..'")
        target = os.path.join(code_dir, *parts)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "xb") as file:
                file.write(data)
        except OSError as error:
            raise _failure("BadPath", f"{path!r} cannot be written: {error.strerror}") from error


def load(spec: Specialize, code_dir: str) -> tuple[Loaded, ByteCode | None]:
    """Makes the function's code importable and imports its handler; also returns what was compiled, if that is
    wanted. Changes the process for good. Raises LoadFailedError."""
    write_files(code_dir, spec.files)
    os.environ.update(spec.env)
    follow_environment(spec.env)
    os.chdir(code_dir)
    names = top_level_names(code_dir)
    double = taken_twice(names)
    if double:
        Shadowing(double, code_dir).install()
    sys.path.insert(0, code_dir)  # after the above, so that nothing of the platform's is looked for here
    module_name, _, attribute = spec.handler.rpartition(".")
    module, byte_code = _import_compiled(module_name, names, spec, code_dir)
    handler = _attribute(module, attribute, spec.handler)
    kind = check_handler(handler, spec)
    gc.collect()
    gc.freeze()
    built_in = sorted(name for name in names if name in sys.stdlib_module_names and is_built_in(name))
    warnings = tuple(
        f"{name} is built into Python: `import {name}` gives that one, not the function's file" for name in built_in
    )
    return Loaded(kind, handler, code_dir, warnings), byte_code


def _import_compiled(name: str, names: set[str], spec: Specialize, code_dir: str) -> tuple[Any, ByteCode | None]:
    """Imports with the byte code that came with the message, and takes what had to be compiled if that is wanted."""
    delivered = bytecode.deliver(code_dir, spec.files, spec.byte_code) if spec.byte_code else set()
    if not spec.want_byte_code:
        return _import(name, names, spec, code_dir), None
    recording = bytecode.Recording(code_dir, spec.files, delivered)
    try:
        module = _import(name, names, spec, code_dir)
    finally:
        recording.stop()
    return module, recording.collect()


def _import(name: str, names: set[str], spec: Specialize, code_dir: str) -> Any:
    top = name.partition(".")[0]
    if top in names and is_built_in(top):
        raise _failure("HandlerNotFound", f"handler {spec.handler!r}: {top} is built into Python; rename {top}.py")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            there = ", ".join(sorted(names)) or "no modules"
            message = f"handler {spec.handler!r}: there is no module {error.name!r}; the code has {there}"
            raise _failure("HandlerNotFound", message) from error
        raise _report(error, code_dir) from error
    except SystemExit as error:
        message = f"the module called sys.exit({error.code!r}) while it was loaded"
        raise _report(error, code_dir, message) from error
    except BaseException as error:
        raise _report(error, code_dir) from error


def _attribute(module: Any, attribute: str, handler: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        file = os.path.basename(getattr(module, "__file__", None) or module.__name__)
        defined = [
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        what = f"it defines {', '.join(defined)}" if defined else "it defines no functions"
        raise _failure("HandlerNotFound", f"handler {handler!r} not found in {file}: {what}") from None


def check_handler(handler: Any, spec: Specialize) -> Kind:
    """How the handler is to be called. Raises LoadFailedError when it cannot be."""
    what = f"handler {spec.handler!r}"
    if not callable(handler):
        raise _failure("BadHandler", f"{what} is not a function but {type(handler).__name__}")
    arguments = ASGI_ARGUMENTS if spec.signature == "asgi" else EVENT_ARGUMENTS
    inner = handler if inspect.isroutine(handler) or inspect.isclass(handler) else type(handler).__call__
    if spec.signature == "event" and (inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)):
        raise _failure("BadHandler", f"{what} is a generator; return the whole reply, or use signature asgi to stream")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        signature = None  # written in C: it may still fit
    if signature is not None:
        try:
            signature.bind(*arguments)
        except TypeError:
            message = f"{what} is called with ({', '.join(arguments)}) but takes {signature}"
            if spec.signature == "event" and len(signature.parameters) == 3:
                message += "; for an ASGI app set signature: asgi"
            raise _failure("BadHandler", message) from None
    if spec.signature == "asgi":
        return "asgi"
    return "async" if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(inner) else "sync"


def _failure(kind: str, message: str) -> LoadFailedError:
    return LoadFailedError(LoadError(kind, message))


def _report(error: BaseException, code_dir: str, message: str = "") -> LoadFailedError:
    report = Report(error, code_dir)
    return LoadFailedError(LoadError(report.type, message or report.message, report.text, report.file, report.line))
