"""Byte code that goes with the code: written down by Python itself, used only for the very same source."""

import importlib
import sys
from importlib.util import MAGIC_NUMBER, source_hash

import pytest

from kappa_api.wire import ByteCode
from kappa_runtime import bytecode

NAME = "module_with_byte_code"
PATH = f"{NAME}.py"
SOURCE = b"value = 'first'\n" + b"# filled\n" * 400


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes folders that hold SOURCE, the last one made is on the path."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [None, *sys.path])
    made = []

    def make(source=SOURCE):
        path = tmp_path / str(len(made))
        path.mkdir()
        (path / PATH).write_bytes(source)
        made.append(path)
        sys.path[0] = str(path)
        sys.modules.pop(NAME, None)
        importlib.invalidate_caches()
        return str(path)

    yield make
    sys.modules.pop(NAME, None)


def record(code_dir, files=None):
    recording = bytecode.Recording(code_dir, files or {PATH: SOURCE}, set())
    try:
        importlib.import_module(NAME)
    finally:
        recording.stop()
    return recording.collect()


def compiles(monkeypatch):
    """The files that are compiled from now on."""
    found = []
    original = importlib.machinery.SourceFileLoader.source_to_code

    def source_to_code(self, data, path, **more):
        found.append(path)
        return original(self, data, path, **more)

    monkeypatch.setattr(importlib.machinery.SourceFileLoader, "source_to_code", source_to_code)
    return found


def test_what_was_compiled_is_not_compiled_again(folder, monkeypatch):
    found = record(folder())
    assert found.tag == bytecode.tag()
    assert found.files[PATH][:16] == MAGIC_NUMBER + b"\3\0\0\0" + source_hash(SOURCE)
    assert sys.dont_write_bytecode is True
    code_dir = folder()
    compiled = compiles(monkeypatch)
    assert bytecode.deliver(code_dir, {PATH: SOURCE}, found) == {PATH}
    assert importlib.import_module(NAME).value == "first"
    assert compiled == []


def test_another_source_is_compiled_even_when_byte_code_lies_there(folder, monkeypatch):
    """Code that rewrites its own files."""
    found = record(folder())
    other = SOURCE.replace(b"first", b"other")  # of the same length
    code_dir = folder(other)
    bytecode.deliver(code_dir, {PATH: SOURCE}, found)
    compiled = compiles(monkeypatch)
    assert importlib.import_module(NAME).value == "other"
    assert len(compiled) == 1


def test_file_names_are_those_of_the_new_place(folder):
    source = b"def f(): return (lambda: 0).__code__\n" + SOURCE
    found = record(folder(source), {PATH: source})
    code_dir = folder(source)
    bytecode.deliver(code_dir, {PATH: source}, found)
    module = importlib.import_module(NAME)
    assert {module.f.__code__.co_filename, module.f().co_filename} == {f"{code_dir}/{PATH}"}


@pytest.mark.parametrize(
    "change",
    [
        lambda code: ByteCode("cpython-1-00000000-0", code.files),
        lambda code: ByteCode(code.tag, {PATH: code.files[PATH].replace(MAGIC_NUMBER, b"\0\0\r\n", 1)}),
        lambda code: ByteCode(code.tag, {PATH: code.files[PATH][:4] + b"\1" + code.files[PATH][5:]}),  # unchecked
        lambda code: ByteCode(code.tag, {PATH: code.files[PATH][:8] + b"12345678" + code.files[PATH][16:]}),
        lambda code: ByteCode(code.tag, {PATH: code.files[PATH][:16]}),
        lambda code: ByteCode(code.tag, {"other.py": code.files[PATH]}),
        lambda code: ByteCode(code.tag, {f"../{PATH}": code.files[PATH]}),
    ],
)
def test_what_does_not_fit_is_not_used(folder, change, tmp_path):
    found = record(folder())
    code_dir = folder()
    before = sorted(tmp_path.rglob("*"))
    assert bytecode.deliver(code_dir, {PATH: SOURCE}, change(found)) == set()
    assert sorted(tmp_path.rglob("*")) == before


def test_the_codes_own_byte_code_stays(folder):
    found = record(folder())
    code_dir = folder()
    assert bytecode.deliver(code_dir, {PATH: SOURCE}, found) == {PATH}
    assert bytecode.deliver(code_dir, {PATH: SOURCE}, found) == set()
    assert record(code_dir) is None


def test_small_files_and_those_that_were_not_imported_have_none(folder, tmp_path):
    code_dir = folder()
    files = {PATH: SOURCE, "unused.py": SOURCE, "small.py": b"x = 1\n", "data.txt": SOURCE}
    assert list(record(code_dir, files).files) == [PATH]
    assert [path.name.partition(".")[0] for path in (tmp_path / "0/__pycache__").iterdir()] == [NAME]


def test_nothing_to_compile(folder):
    code_dir = folder(b"x = 1\n")
    assert record(code_dir, {PATH: b"x = 1\n"}) is None
    assert sys.dont_write_bytecode is True


def test_code_that_does_not_load_leaves_the_process_as_it_was(folder):
    source = b"1 / 0\n" + SOURCE
    with pytest.raises(ZeroDivisionError):
        record(folder(source), {PATH: source})
    assert sys.dont_write_bytecode is True


def test_no_more_than_the_limit(folder, monkeypatch):
    monkeypatch.setattr(bytecode, "MAX_BYTES", 20)
    assert record(folder()) is None
