"""What the operator keeps of byte code, and what it forgets."""

from kappa_api.wire import ByteCode, Specialize
from kappa_operator.bytecode import ENTRY_BYTES, ByteCodes, Key

MESSAGE = Specialize("ns", "fn", "r1", "main.handler", "event", {"main.py": b"x", "lib.py": b"y"})


def key(revision: str = "r1", function: str = "ns/fn", image: str = "python:1") -> Key:
    return Key(function, revision, image)


def code(size: int = 10, path: str = "main.py") -> ByteCode:
    return ByteCode("t", {path: b"x" * size})


def test_what_an_instance_answered_is_for_its_function_revision_and_image_only() -> None:
    codes = ByteCodes()
    codes.put(key(), code(), MESSAGE)
    assert codes.get(key()) == code()
    for other in (key("r2"), key(function="other/fn"), key(image="python:2")):
        assert codes.get(other) is None
        assert not codes.known(other)


def test_that_there_is_none_is_remembered() -> None:
    codes = ByteCodes()
    codes.put(key(), ByteCode("", {}), MESSAGE)
    assert codes.known(key())
    assert codes.get(key()) is None


def test_what_is_no_file_of_the_revision_is_not_kept() -> None:
    codes = ByteCodes()
    codes.put(key(), ByteCode("t", {"lib.py": b"1", "evil.py": b"2"}), MESSAGE)
    assert codes.get(key()) == ByteCode("t", {"lib.py": b"1"})
    codes.put(key("r2"), code(path="evil.py"), MESSAGE)
    assert codes.known(key("r2"))
    assert codes.get(key("r2")) is None


def test_one_that_is_too_large_is_not_kept() -> None:
    codes = ByteCodes(most_of_one=ENTRY_BYTES + 50)
    codes.put(key(), code(100), MESSAGE)
    assert codes.known(key())
    assert repr(codes) == f"<ByteCodes 1 revisions, {ENTRY_BYTES} of {codes.most} bytes>"


def test_the_least_recently_used_go() -> None:
    one = ENTRY_BYTES + len("main.py") + 100
    codes = ByteCodes(most=2 * one)
    codes.put(key("a"), code(100), MESSAGE)
    codes.put(key("b"), code(100), MESSAGE)
    codes.put(key("b"), code(100), MESSAGE)  # again: counted once
    assert codes.size == 2 * one
    codes.get(key("a"))
    codes.put(key("c"), code(100), MESSAGE)
    assert [codes.known(key(revision)) for revision in "abc"] == [True, False, True]
    assert codes.size == 2 * one
