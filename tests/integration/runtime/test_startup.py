"""What makes an instance start faster changes nothing else: modules imported ahead, byte code that comes along."""

import json

import pytest

from kappa_runtime.preload import MODULES
from kappa_runtime.shadow import is_built_in

IMPORTED = "common modules are imported"
PADDING = "# " + "padding " * 300 + "\n"
COUNTING = """
import importlib.machinery
compiled = []
def source_to_code(self, data, path, original=importlib.machinery.SourceFileLoader.source_to_code, **more):
    compiled.append(path.rpartition("/")[2])
    return original(self, data, path, **more)
importlib.machinery.SourceFileLoader.source_to_code = source_to_code
"""
FILES = {
    "main.py": COUNTING + "import lib\ndef handler(event, context): return lib.run(event, compiled)\n",
    "lib.py": PADDING
    + """
def run(event, compiled):
    if event["rawPath"] == "/raise":
        raise ValueError("x")
    return compiled
""",
}


def test_an_empty_pod_imports_the_common_modules(pod):
    pod.logs.message(IMPORTED)
    code = "import sys\nfound = set(sys.modules)\ndef handler(event, context): return sorted(found)\n"
    assert set(MODULES) - set(pod.load(code).get().json()) == set()


def test_a_pod_that_has_its_code_imports_nothing_more(pods):
    pod = pods(preload=0)
    code = "import sys\ndef handler(event, context): return 'csv' in sys.modules\n"
    assert pod.load(code).get().json() is False


@pytest.mark.parametrize("preload", [0, 1])
def test_a_functions_modules_named_like_imported_ones_win(pods, preload):
    pod = pods(preload=preload)
    if preload:
        pod.logs.message(IMPORTED)
    tops = sorted({name.partition(".")[0] for name in MODULES} - {"importlib"})
    names = [name for name in tops if not is_built_in(name)]
    files: dict[str, str | bytes] = {f"{name}.py": "mine = True\n" for name in names}
    files["main.py"] = f"""
import {", ".join(names)}
import smtplib, tarfile, ssl
found = [module.__name__ for module in ({", ".join(names)}) if module.mine]
def handler(event, context):
    import plistlib
    try:
        import email.message
    except ModuleNotFoundError:
        return [found, smtplib.SMTP.__name__, plistlib.loads.__name__]
"""
    assert pod.load(files).get().json() == [names, "SMTP", "loads"]


def test_byte_code_is_compiled_once(pods):
    first = pods().specialize(FILES, wantByteCode=True)
    assert first.json()["state"] == "serving"
    byte_code = first.json()["byteCode"]
    assert list(byte_code["files"]) == ["lib.py"]
    without, given = pods().load(FILES), pods().load(FILES, byteCode=byte_code)
    assert (without.get().json(), given.get().json()) == (["lib.py"], [])
    failed = [pod.get("/raise", kappa_request_id="r").json() for pod in (without, given)]
    assert failed[0] == failed[1]
    assert failed[0]["stackTrace"][-1].startswith('  File "lib.py", line 5, in run\n    raise ValueError("x")\n')


def test_byte_code_is_not_answered_unless_it_is_wanted(pods):
    assert "byteCode" not in pods().specialize(FILES).json()
    assert "byteCode" not in pods().specialize("def handler(event, context): 0\n", wantByteCode=True).json()


def test_code_that_rewrites_itself_runs_as_written(pods):
    """Even though it came with byte code for the file as it was delivered."""
    byte_code = pods().specialize(FILES, wantByteCode=True).json()["byteCode"]
    main = COUNTING + "open('lib.py', 'w').write('def run(event, compiled): return \"rewritten\"')\n"
    files = FILES | {"main.py": main + "import lib\ndef handler(event, context): return lib.run(event, compiled)\n"}
    assert pods().load(files, byteCode=byte_code).get().json() == "rewritten"


def test_byte_code_of_another_python_is_ignored(pods):
    byte_code = pods().specialize(FILES, wantByteCode=True).json()["byteCode"] | {"tag": "cpython-1"}
    assert pods().load(FILES, byteCode=byte_code).get().json() == ["lib.py"]


def test_a_message_with_nonsense_for_byte_code(pod, specialize_message):
    message = specialize_message("def handler(event, context): 0\n", byteCode={"tag": "t", "files": {"a.py": "*"}})
    assert pod.platform("PUT", "/_kappa/revision", json.dumps(message)).status == 400


def test_the_process_writes_no_byte_code_after_the_load(pods):
    code = "import sys\ndef handler(event, context): return sys.dont_write_bytecode\n" + PADDING
    assert pods().load(code, wantByteCode=True).get().json() is True
