"""Importing ahead: one module at a time, not while somebody is connected, and no longer than it is of use."""

import os
import sys

import pytest

from kappa_runtime.preload import MODULES, PAUSE_SECONDS, Preload, follow_environment


class Loop:
    """Keeps what is to be called."""

    def __init__(self):
        self.soon, self.later = [], []

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, seconds, callback):
        assert seconds == PAUSE_SECONDS
        self.later.append(callback)


@pytest.fixture
def modules(tmp_path, monkeypatch):
    names = ["preload_test_a", "preload_test_b"]
    for name in names:
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield names
    for name in names:
        sys.modules.pop(name, None)


def test_one_after_the_other(modules):
    loop, done = Loop(), []
    names = [modules[0], "preload_test_is_not_there", modules[1]]
    preload = Preload(loop, lambda: True, lambda: True, lambda count, seconds: done.append(count), names)
    preload.step()
    assert modules[0] in sys.modules
    assert modules[1] not in sys.modules
    while loop.soon:
        loop.soon.pop()()
    assert modules[1] in sys.modules
    assert done == [2]


def test_it_waits_while_somebody_is_connected_and_ends_when_there_is_code(modules):
    loop, done, connections, empty = Loop(), [], ["one"], [True]
    preload = Preload(loop, lambda: bool(empty), lambda: not connections, lambda *found: done.append(found), modules)
    preload.step()
    assert modules[0] not in sys.modules
    connections.clear()
    loop.later.pop()()
    assert modules[0] in sys.modules
    empty.clear()
    loop.soon.pop()()
    assert modules[1] not in sys.modules
    assert (loop.soon, loop.later, done) == ([], [], [])


def test_the_list_is_of_the_standard_library():
    assert {name.partition(".")[0] for name in MODULES} <= sys.stdlib_module_names
    assert len(set(MODULES)) == len(MODULES)


def test_zoneinfo_finds_the_functions_own_zones(tmp_path, monkeypatch):
    import zoneinfo

    monkeypatch.setenv("PYTHONTZPATH", str(tmp_path))
    follow_environment(os.environ)
    assert (str(tmp_path),) == zoneinfo.TZPATH
    monkeypatch.undo()
    zoneinfo.reset_tzpath()
