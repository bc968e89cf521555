"""What a pool pod costs, and what is in it: the guards against the image growing."""

import json
import subprocess
import sys

HELLO = "def handler(event, context):\n    return {'hello': 'world'}\n"
MAX_IDLE_KIB = 35 * 1024
ALLOWED = {"kappa_api", "kappa_runtime", "httptools", "uvloop"}


def imported(code):
    """The top-level modules of a process that has run `code`."""
    script = code + "\nimport sys, json; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=True, text=True)
    return set(json.loads(done.stdout))


def test_nothing_but_the_standard_library_httptools_and_uvloop():
    bare = imported("")  # what editable installs and the like bring into any process here
    found = imported("import kappa_runtime.main, kappa_runtime.__main__")
    found = {name for name in found if "cython" not in name}  # those have no file: they are parts of httptools
    assert found - bare - set(sys.stdlib_module_names) - ALLOWED == set()
    assert found >= ALLOWED


def test_idle_memory(pod, capsys):
    pod.logs.message("common modules are imported")
    empty = pod.rss_kib()
    pod.load(HELLO)
    for _ in range(100):
        pod.get()
    served = pod.rss_kib()
    with capsys.disabled():
        print(f" [RSS: empty {empty / 1024:.1f} MiB, after 100 invocations {served / 1024:.1f} MiB]", end="")
    assert empty < MAX_IDLE_KIB
    assert served < MAX_IDLE_KIB


def test_it_works_without_uvloop(tmp_path):
    code = (
        "import sys; sys.modules['uvloop'] = None; import kappa_runtime.main as m; print(m.new_event_loop.__module__)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "asyncio.events"


def test_a_pod_that_cannot_listen_says_so(pod):
    env = {"POD_IP": "127.91.0.1", "PORT": str(pod.port), "PATH": ""}
    done = subprocess.run([sys.executable, "-P", "-m", "kappa_runtime"], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot listen on 127.91.0.1" in json.loads(done.stdout)["message"]
    env["PORT"] = "http"
    done = subprocess.run([sys.executable, "-P", "-m", "kappa_runtime"], env=env, capture_output=True, text=True)
    assert (done.returncode, "not usable" in done.stdout) == (2, True)
