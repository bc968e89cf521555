"""What the function writes, and what becomes of it."""

import signal

OUTPUT = """
import logging, os, subprocess, sys, threading, warnings
log = logging.getLogger("app")
def handler(event, context):
    print("one", 2)
    print("a\\nb")
    print("no end", end="")
    print("to stderr", file=sys.stderr)
    sys.stdout.buffer.write(b"bytes \\xff\\n")
    log.info("info %s", "x")
    log.debug("not shown")
    log.error("bad format %d %d", 1)
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
    warnings.warn("careful")
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
    def dies():
        raise ValueError("in a thread")
    thread = threading.Thread(target=dies)
    thread.start()
    thread.join()
    print("x" * 300_000)
    subprocess.run(["echo", "raw"])
    print("\\ud800 lone, \\0 nul")
"""


def test_everything_is_json_with_the_request_id(pod):
    pod.load(OUTPUT).get(kappa_request_id="r1")
    pod.stop()
    lines = [line for line in pod.logs.lines if line.get("requestId") == "r1"]
    for line in lines:
        assert line["function"] == "default/hello"
        assert line["time"].endswith("Z")
    found = [(line["level"], line["message"][:40], line.get("stream") or line.get("logger")) for line in lines]
    assert found == [
        ("INFO", "one 2", "stdout"),
        ("INFO", "a", "stdout"),
        ("INFO", "b", "stdout"),
        ("ERROR", "to stderr", "stderr"),
        ("INFO", "no endbytes \\xff", "stdout"),
        ("INFO", "info x", "app"),
        ("ERROR", "'bad format %d %d' (1,) (cannot be forma", "app"),
        ("ERROR", "failed", "app"),
        ("WARNING", found[8][1], "py.warnings"),
        ("INFO", "from a thread", "stdout"),
        ("ERROR", "uncaught exception in thread Thread-2 (d", None),
        ("INFO", "x" * 40, "stdout"),
        ("INFO", "\ud800 lone, \0 nul", "stdout"),
    ]
    assert "ZeroDivisionError" in lines[7]["exception"]
    assert "careful" in lines[8]["message"]
    assert lines[11]["message"].endswith(f" ...[{300_000 - 262_144} more characters cut]")
    assert b"raw\n" in pod.logs.raw


def test_lines_of_invocations_that_overlap(pod, background):
    code = """
import asyncio
async def handler(event, context):
    for n in range(20):
        print(context.request_id, end="")
        await asyncio.sleep(0)
        print("-", n)
"""
    pod.load(code, concurrency=10)
    for call in [background(lambda n=n: pod.get(kappa_request_id=f"r{n}")) for n in range(10)]:
        call.result()
    pod.stop()
    for n in range(10):
        lines = [line["message"] for line in pod.logs.lines if line.get("requestId") == f"r{n}"]
        assert lines == [f"r{n}- {i}" for i in range(20)]


def test_an_unfinished_line_is_written_at_the_end_of_its_invocation(pod):
    pod.load("def handler(event, context):\n    print('half', end='')\n")
    pod.get(kappa_request_id="r1")
    assert pod.logs.message("half")["requestId"] == "r1"


def test_nobody_reads_the_log(pod):
    """The pipe fills up: lines are lost, the function goes on; afterwards the log says how many."""
    code = "def handler(event, context):\n    for _ in range(50): print('x' * 10_000)\n    return 'ok'\n"
    pod.load(code)
    # The reader is a thread of this process: hold its lock, so that it reads no more.
    with pod.logs.changed:
        assert [pod.get().json() for _ in range(5)] == ["ok"] * 5
    while not (found := [line for line in list(pod.logs.lines) if "log lines were lost" in line["message"]]):
        assert pod.get().json() == "ok"
    assert found[0]["level"] == "WARNING"


def test_a_crash_leaves_a_trace(pod):
    pod.load("import ctypes\ndef handler(event, context):\n    ctypes.string_at(0)\n")
    pod.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert pod.wait() == -signal.SIGSEGV
    pod._reader.join(20)
    assert b"Fatal Python error: Segmentation fault" in b"".join(pod.logs.raw)
