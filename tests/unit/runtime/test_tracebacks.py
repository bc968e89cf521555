"""Exceptions as their author sees them."""

from kappa_runtime.tracebacks import Report, describe


def raised(source, code_dir="/code"):
    try:
        exec(compile(source, f"{code_dir}/main.py", "exec"), {})
    except BaseException as error:
        return Report(error, code_dir)
    raise AssertionError("did not raise")


def test_where_it_happened():
    report = raised("def f():\n    raise KeyError('x')\nf()\n")
    assert (report.type, report.message, report.file, report.line) == ("KeyError", "'x'", "main.py", 2)
    assert [frame.splitlines()[0] for frame in report.frames][-2:] == [
        '  File "main.py", line 3, in <module>',
        '  File "main.py", line 2, in f',
    ]


def test_causes_and_groups_are_trimmed_too():
    report = raised("try:\n    1/0\nexcept Exception as e:\n    raise ExceptionGroup('g', [ValueError('v')]) from e\n")
    assert "/code" not in report.text
    assert "ZeroDivisionError" in report.text
    assert "ValueError: v" in report.text


def test_syntax_errors_have_the_line_of_the_source():
    report = raised("x = 1\ny = = 2\n")
    assert (report.type, report.file, report.line) == ("SyntaxError", "main.py", 2)
    assert 'File "main.py", line 2' in report.text


def test_deep_recursion_is_short():
    report = raised("def f():\n    f()\nf()\n")
    assert report.type == "RecursionError"
    assert len(report.text) < 3000


def test_exceptions_that_fail_themselves():
    source = "class Bad(Exception):\n    def __str__(self): raise ValueError\n    __repr__ = __str__\nraise Bad\n"
    report = raised(source)
    assert report.type == "Bad"
    assert (
        describe(type("X", (Exception,), {"__str__": lambda self: 1 / 0})())
        == "<the exception's text could not be made>"
    )
