"""Exceptions as their author should see them: frames of the function's code, paths relative to its folder."""

import importlib
import os
import sys
import traceback
from types import FrameType
from typing import Any

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORTS = ("<frozen importlib", "<frozen runpy", os.path.abspath(importlib.__file__))


class Report:
    """An exception in text. `frames` has one entry per frame, innermost last; `file` and `line` are where it happened
    (`line` is 0 when that is not known)."""

    def __init__(self, error: BaseException, code_dir: str) -> None:
        self.type = type(error).__name__
        self.message = describe(error)
        self.file, self.line = "", 0
        try:
            formatted = traceback.TracebackException(type(error), error, error.__traceback__)
            _trim(formatted, code_dir, set())
            self.frames = formatted.stack.format()
            self.text = "".join(formatted.format())
            if formatted.stack:
                self.file, self.line = formatted.stack[-1].filename, formatted.stack[-1].lineno or 0
        except Exception as broken:  # the exception's own __str__, __cause__ and so on are the function's code
            self.frames, self.text = [], f"{self.type}: {self.message} (no traceback: {type(broken).__name__})"
        if isinstance(error, SyntaxError) and error.filename:
            self.file, self.line = relative(error.filename, code_dir), error.lineno or 0
            self.message = error.msg  # its text would name file and line a second time


def describe(error: BaseException) -> str:
    """The exception's message, even when its `__str__` fails."""
    try:
        return str(error)
    except Exception:
        return "<the exception's text could not be made>"


def relative(path: str, code_dir: str) -> str:
    return path.removeprefix(code_dir + os.sep)


def stack_of(thread_id: int | None, code_dir: str) -> str:
    """What a thread is doing right now, or an empty string."""
    frame: FrameType | None = sys._current_frames().get(thread_id) if thread_id is not None else None
    if frame is None:
        return ""
    frames = list(traceback.walk_stack(frame))[::-1]
    ours = [i for i, (one, _) in enumerate(frames) if one.f_code.co_filename.startswith(_OURS)]
    return _format(frames[ours[-1] + 1 :] if ours else frames, code_dir)


def stack_of_coroutine(coroutine: Any, code_dir: str) -> str:
    """Where a suspended coroutine waits, through everything that it awaits."""
    frames = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            frames.append((frame, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return _format(frames, code_dir)


def _format(frames: list[tuple[FrameType, int]], code_dir: str) -> str:
    summary = traceback.StackSummary.extract(iter(frames), lookup_lines=False)
    _trim_stack(summary, code_dir)
    return "".join(summary.format())


def _trim(formatted: traceback.TracebackException, code_dir: str, seen: set[int]) -> None:
    if id(formatted) in seen:
        return
    seen.add(id(formatted))
    _trim_stack(formatted.stack, code_dir)
    source = getattr(formatted, "filename", None)  # only a SyntaxError has one
    if source:
        formatted.filename = relative(source, code_dir)
    inner = [formatted.__cause__, formatted.__context__, *(getattr(formatted, "exceptions", None) or ())]
    for other in inner:
        if other is not None:
            _trim(other, code_dir, seen)


def _trim_stack(stack: traceback.StackSummary, code_dir: str) -> None:
    stack[:] = [frame for frame in stack if not frame.filename.startswith((_OURS, *_IMPORTS))]
    for frame in stack:
        _ = frame.line  # read it while the file name is still a path
        frame.filename = relative(frame.filename, code_dir)
