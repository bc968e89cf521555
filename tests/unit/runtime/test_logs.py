"""The sink: lines, their owner, and a pipe that nobody reads."""

import json
import os

import pytest

from kappa_runtime.logs import MAX_LINE, LineStream, LogHandler, Scope, Sink, current


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, Sink(writer, clock=lambda: 1_000_000_000.25, patience=0)
    os.close(reader)
    os.close(writer)


def lines(reader):
    data = b""
    try:
        while part := os.read(reader, 1 << 20):
            data += part
    except BlockingIOError:
        pass
    return [json.loads(line) for line in data.splitlines()]


def test_a_line(pipe):
    reader, sink = pipe
    sink.function = "default/hello"
    sink.record("INFO", "text", "r1", extra=1, nothing=None, odd=object)
    assert lines(reader) == [
        {
            "time": "2001-09-09T01:46:40.250Z",
            "level": "INFO",
            "requestId": "r1",
            "function": "default/hello",
            "message": "text",
            "extra": 1,
            "odd": "<class 'object'>",
        }
    ]


def test_whose_line_it_is(pipe):
    reader, sink = pipe
    out = LineStream(sink, "stdout", 1)
    one, two = Scope("r1"), Scope("r2")
    out.write("nobody's\n")
    sink.begin(one)
    out.write("of the only one\n")
    sink.begin(two)
    out.write("of none: there are two\n")
    token = current.set(two)
    out.write("of the second\n")
    sink.end(two)
    out.write("of the first: the second is over\n")
    current.reset(token)
    assert [line.get("requestId") for line in lines(reader)] == [None, "r1", None, "r2", "r1"]


def test_unfinished_lines_wait_for_the_end(pipe):
    reader, sink = pipe
    out = LineStream(sink, "stdout", 1)
    scope = Scope("r1")
    sink.begin(scope)
    out.write("a")
    out.buffer.write(b"b\xff")
    assert lines(reader) == []
    sink.end(scope)
    assert [line["message"] for line in lines(reader)] == ["ab\\xff"]
    out.write("left")
    sink.flush()
    assert [line["message"] for line in lines(reader)] == ["left"]


def test_long_lines_are_cut_whether_they_come_at_once_or_not(pipe):
    _, sink = pipe
    found = []
    sink._write = lambda line: found.append(json.loads(line)["message"])
    out = LineStream(sink, "stdout", 1)
    out.write("x" * (MAX_LINE + 10) + "\n")
    for _ in range(MAX_LINE // 1000 + 1):
        out.write("x" * 1000)
    out.write("\n")
    assert found[0] == "x" * MAX_LINE + " ...[10 more characters cut]"
    assert found[1] == "x" * MAX_LINE + f" ...[{1000 - MAX_LINE % 1000} more characters cut]"


def test_a_full_pipe_loses_lines_and_says_how_many(pipe):
    reader, sink = pipe
    for _ in range(20):
        sink.record("INFO", "x" * 10_000, "r1")
    data = os.read(reader, 1 << 20)
    whole = data.count(b"\n")
    assert 0 < whole < 20
    sink.record("INFO", "after", "r1")
    found = os.read(reader, 1 << 20)
    torn, *rest = found.splitlines()
    assert torn == b""  # ends the line that was broken off
    report, after = (json.loads(line) for line in rest)
    assert report["message"] == f"{20 - whole} log lines were lost: nobody read the log fast enough"
    assert after["message"] == "after"


def test_a_log_that_is_gone_does_not_matter():
    reader, writer = os.pipe()
    os.close(reader)
    Sink(writer).record("INFO", "x")
    os.close(writer)


def test_a_record_that_cannot_be_formatted(pipe):
    import logging

    reader, sink = pipe
    LogHandler(sink).emit(logging.LogRecord("a.b", logging.WARNING, "f", 1, "%d", ("x",), None))
    line = lines(reader)[0]
    assert (line["level"], line["logger"]) == ("WARNING", "a.b")
    assert line["message"].startswith("'%d' ('x',) (cannot be formatted")


def test_streams_behave_like_streams(pipe):
    _, sink = pipe
    out = LineStream(sink, "stderr", 2)
    out.close()
    assert (out.writable(), out.isatty(), out.fileno(), out.encoding, out.closed) == (True, False, 2, "utf-8", False)
    with pytest.raises(TypeError):
        out.write(b"bytes")
