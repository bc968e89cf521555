"""Code that loads, code that does not, and code whose modules are named like somebody else's."""

import pytest

OK = "def handler(event, context):\n    return 'ok'\n"


@pytest.mark.parametrize(
    ("files", "handler", "kind", "text", "where"),
    [
        ({"main.py": "import a_module_that_is_not_there\n"}, "main.handler", "ModuleNotFoundError", "a_module_that", ("main.py", 1)),  # noqa: E501
        ({"main.py": "x = 1\ndef handler(:\n"}, "main.handler", "SyntaxError", "invalid syntax", ("main.py", 2)),
        ({"main.py": "import lib\n", "lib.py": "\n\n(\n"}, "main.handler", "SyntaxError", "never closed", ("lib.py", 3)),  # noqa: E501
        ({"main.py": "x = 1\n1 / 0\n"}, "main.handler", "ZeroDivisionError", "division by zero", ("main.py", 2)),
        ({"main.py": "import sys\nsys.exit(4)\n"}, "main.handler", "SystemExit", "called sys.exit(4)", ("main.py", 2)),
        ({"main.py": "raise KeyboardInterrupt\n"}, "main.handler", "KeyboardInterrupt", "", ("main.py", 1)),
        ({"main.py": b"\xff\xfe\x00"}, "main.handler", "SyntaxError", "", ("", 0)),
        ({"main.py": b""}, "main.handler", "HandlerNotFound", "main.py: it defines no functions", ("", 0)),
        ({"main.py": "def other(e, c): 0\n"}, "main.handler", "HandlerNotFound", "it defines other", ("", 0)),
        ({"app.py": OK}, "main.handler", "HandlerNotFound", "no module 'main'; the code has app", ("", 0)),
        ({"pkg/__init__.py": "", "pkg/a.py": OK}, "pkg.b.handler", "HandlerNotFound", "no module 'pkg.b'", ("", 0)),
        ({}, "main.handler", "HandlerNotFound", "the code has no modules", ("", 0)),
        ({"main.py": "handler = 3\n"}, "main.handler", "BadHandler", "not a function but int", ("", 0)),
        ({"main.py": "def handler(event): 0\n"}, "main.handler", "BadHandler", "called with (event, context)", ("", 0)),
        ({"main.py": "def handler(scope, receive, send): 0\n"}, "main.handler", "BadHandler", "signature: asgi", ("", 0)),  # noqa: E501
        ({"main.py": "def handler(e, c):\n    yield\n"}, "main.handler", "BadHandler", "generator", ("", 0)),
        ({"main.py": "async def handler(e, c):\n    yield\n"}, "main.handler", "BadHandler", "generator", ("", 0)),
        ({"time.py": OK}, "time.handler", "HandlerNotFound", "built into Python", ("", 0)),
        ({"../evil.py": OK}, "main.handler", "BadPath", "not a path inside", ("", 0)),
        ({"/tmp/evil.py": OK}, "main.handler", "BadPath", "not a path inside", ("", 0)),
        ({"a/../../evil.py": OK}, "main.handler", "BadPath", "not a path inside", ("", 0)),
        ({"a": "x", "a/b.py": OK}, "main.handler", "BadPath", "cannot be written", ("", 0)),
    ],
)  # fmt: skip
def test_code_that_does_not_load(pod, files, handler, kind, text, where):
    reply = pod.specialize(files, handler)
    error = reply.json()
    assert reply.status == 422
    assert (error["type"], error["file"], error["line"]) == (kind, *where), error
    assert text in error["message"]
    assert "kappa_runtime" not in error["traceback"]
    assert pod.logs.message("does not load")["level"] == "ERROR"
    # The process has run that code half way: it is spent, and takes no other.
    assert pod.health()["state"] == "empty"
    assert pod.get().headers["kappa-refused"] == "empty"
    again = pod.specialize(OK)
    assert (again.status, again.json()["state"]) == (409, "empty")


def test_the_traceback_is_the_authors(pod):
    error = pod.specialize({"main.py": "import lib\n", "lib.py": "def f():\n    raise OSError('x')\nf()\n"}).json()
    lines = [line for line in error["traceback"].splitlines() if set(line) - set(" ~^")]  # Python 3.13 marks more
    assert lines == [
        "Traceback (most recent call last):",
        '  File "main.py", line 1, in <module>',
        "    import lib",
        '  File "lib.py", line 3, in <module>',
        "    f()",
        '  File "lib.py", line 2, in f',
        "    raise OSError('x')",
        "OSError: x",
    ]


@pytest.mark.parametrize("code", ["while True: pass\n", "import time; time.sleep(1000)\n"])
def test_code_that_never_finishes_loading(pods, code):
    pod = pods(min_load_seconds=0.3)
    error = pod.specialize(code, timeoutSeconds=1).json()
    assert (error["type"], error["message"]) == ("Timeout", "the code did not finish loading within 1 seconds")
    assert 'File "main.py", line 1' in error["traceback"]
    assert pod.stop() == 0


def test_prints_while_loading_are_logged(pod):
    pod.load("print('one')\nprint('two', end='')\nimport sys; print('three', file=sys.stderr)\n" + OK)
    pod.stop()
    assert {line["message"] for line in pod.logs.lines} >= {"one", "two", "three"}


def test_env_is_there_when_the_code_is_imported(pod):
    pod.load(
        "import os, time\nHERE = os.environ['A'], time.strftime('%Z')\ndef handler(e, c): return HERE\n",
        env={"A": "b", "TZ": "EST5"},
    )
    assert pod.get().json() == ["b", "EST"]


def test_packages_and_nested_modules(pod):
    files = {"a/__init__.py": "", "a/b/__init__.py": "from .c import name\n", "a/b/c.py": "name = 'deep'\n"}
    files["a/main.py"] = "from a.b import name\ndef handler(event, context): return name\n"
    assert pod.load(files, "a.main.handler").get().json() == "deep"


@pytest.mark.parametrize(
    "handler",
    [
        "class H:\n    def __call__(self, event, context): return 'ok'\nhandler = H()\n",
        "class H:\n    async def __call__(self, event, context): return 'ok'\nhandler = H()\n",
        "import functools\ndef f(x, event, context): return x\nhandler = functools.partial(f, 'ok')\n",
        "import functools\nasync def f(x, event, context): return x\nhandler = functools.partial(f, 'ok')\n",
        "handler = lambda *args: 'ok'\n",
        "def handler(event, context=None, more=1): return 'ok'\n",
    ],
)
def test_what_a_handler_may_be(pod, handler):
    assert pod.load(handler).get().json() == "ok"


STANDARD = ["json", "logging", "types", "random", "string", "asyncio", "threading", "traceback", "inspect", "typing"]


@pytest.mark.parametrize("define", ["def", "async def"])
def test_modules_named_like_standard_ones(pod, define):
    """The function gets its own, the standard library and the runtime keep theirs."""
    files = {f"{name}.py": f"mine = {name!r}\n" for name in STANDARD}
    files |= {f"{name}/__init__.py": f"mine = {name!r}\n" for name in ("email", "http", "xml")}
    files |= {"email/utils.py": "mine = 'email.utils'\nfrom . import mine as parent\n", "html/page.txt": "no package"}
    names = [*STANDARD, "email", "http", "xml"]
    files["main.py"] = f"""
import {", ".join(names)}
import email.utils, html, importlib
def text():
    import smtplib, tempfile, http.server, collections, dataclasses, urllib.request, statistics, concurrent.futures
    tempfile.NamedTemporaryFile().close()
    assert statistics.mean([1, 3]) == 2                 # which needs the standard random
    assert html.escape("<") == "&lt;"                   # a folder without __init__ hides nothing
    assert email.utils.parent == "email"
    assert importlib.import_module("json").mine == "json"
    return urllib.request.Request("http://x/").host
try:
    text()
except ModuleNotFoundError as error:
    missing = str(error)                                # http.server: the function's own http has none
else:
    missing = ""
{define} handler(event, context):
    if event["rawPath"] == "/raise":
        raise ValueError("x")
    print("printed")
    return [module.mine for module in ({", ".join(names)})] + [missing]
"""
    reply = pod.load(files).get(kappa_request_id="r1")
    assert reply.json() == [*names, "No module named 'http.server'"]
    assert pod.logs.message("printed")["requestId"] == "r1"
    failed = pod.get("/raise")
    assert failed.json()["stackTrace"] == ['  File "main.py", line 20, in handler\n    raise ValueError("x")\n']
    assert pod.drain().status == 200


def test_a_standard_module_that_imports_a_name_the_function_has_taken(pod):
    """smtplib needs the standard email, http.client too; neither is imported by the runtime."""
    files = {"email.py": "mine = True\n", "random.py": "mine = True\n", "string.py": "mine = True\n"}
    files["main.py"] = """
import email, random, string
import smtplib, http.client, tempfile, secrets
def handler(event, context):
    import uuid, urllib.request
    tempfile.mkdtemp()
    standard = http.client.HTTPMessage.__mro__[1].__module__
    return [email.mine, random.mine, string.mine, standard, len(secrets.token_hex(4))]
"""
    assert pod.load(files).get().json() == [True, True, True, "email.message", 8]


@pytest.mark.parametrize("name", ["server", "loader", "main2", "replies", "handlers"])
def test_modules_named_like_the_runtimes(pod, name):
    files = {
        f"{name}.py": "mine = True\n",
        "main.py": f"import {name}\ndef handler(event, context): return {name}.mine\n",
    }
    assert pod.load(files).get().json() is True


@pytest.mark.parametrize("signature", ["event", "asgi"])
def test_the_functions_own_copies_of_what_the_runtime_uses(pod, signature):
    """Other versions of httptools and uvloop, and even packages called kappa_runtime and kappa_api."""
    names = ["httptools", "uvloop", "kappa_runtime", "kappa_api"]
    files = {f"{name}/__init__.py": "version = 'mine'\n" for name in names}
    files["main.py"] = f"""
import {", ".join(names)}
found = [module.version for module in ({", ".join(names)})]
def handler(event, context): return found
async def app(scope, receive, send):
    if scope["type"] == "http":
        import json
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": json.dumps(found).encode()}})
"""
    pod.load(files, "main.app" if signature == "asgi" else "main.handler", signature=signature)
    assert [pod.get().json() for _ in range(3)] == [["mine"] * 4] * 3


def test_a_name_that_is_built_into_python_is_warned_of(pod):
    pod.load(
        {"main.py": "import time\ndef handler(event, context): return hasattr(time, 'mine')\n", "time.py": "mine = 1\n"}
    )
    assert pod.get().json() is False
    assert "time is built into Python" in pod.logs.message("built into")["message"]


def test_vendored_packages_come_before_the_images(pod):
    """As in a Lambda archive: packages lie at the root of the code."""
    files = {"requests/__init__.py": "__version__ = 'vendored'\n", "yaml.py": "__version__ = 'vendored'\n"}
    files["main.py"] = (
        "import requests, yaml\ndef handler(event, context): return requests.__version__ + yaml.__version__\n"
    )
    assert pod.load(files).get().json() == "vendoredvendored"
