"""Two modules of one name: who gets which."""

import sys

import pytest

from kappa_runtime.shadow import Shadowing, is_built_in, taken_twice, top_level_names


@pytest.fixture
def code_dir(tmp_path):
    for path in ("a.py", "b/__init__.py", "c/page.html", "d.txt", "e.cpython-311-x86_64-linux-gnu.so", "wave.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("mine = True\n" if path.endswith(".py") else "")
    return str(tmp_path)


def test_top_level_names(code_dir):
    names = top_level_names(code_dir)
    assert names - {"e"} == {"a", "b", "wave"}  # a folder without __init__ hides nothing


@pytest.mark.parametrize(
    ("name", "built_in"),
    [("sys", True), ("time", True), ("os", True), ("__main__", True), ("json", False), ("wave", False)],
)
def test_what_is_built_in(name, built_in):
    assert is_built_in(name) == built_in


def test_what_is_taken_twice():
    assert taken_twice({"main", "json", "sys", "httptools", "requests"}) == {"json", "httptools"}


def test_each_side_gets_its_own(code_dir, monkeypatch):
    import wave as standard

    monkeypatch.setattr(sys, "path", [code_dir, *sys.path])
    shadowing = Shadowing({"wave"}, code_dir)
    shadowing.install()
    try:
        mine: dict[str, object] = {"__name__": "main", "__file__": code_dir + "/main.py"}
        exec("import wave\nfrom wave import mine", mine)
        assert mine["mine"] is True
        theirs: dict[str, object] = {"__name__": "sunau", "__file__": sys.modules["enum"].__file__}
        exec("import wave\nfrom wave import Wave_read", theirs)
        assert theirs["wave"] is standard
        del shadowing._real["wave"]  # as if the runtime had not imported it
        exec("import wave\nfrom wave import Wave_read", theirs)
        assert theirs["Wave_read"] is not standard.Wave_read
        exec("import wave", mine)
        assert mine["wave"].mine  # type: ignore[attr-defined]
    finally:
        shadowing.uninstall()
        sys.modules["wave"] = standard
