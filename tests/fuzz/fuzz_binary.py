"""Archives and WebSocket frames: bytes from outside that are taken apart in memory."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import warnings
import zipfile
from itertools import pairwise
from typing import Any

from fuzz_forms import plain, stream
from fuzz_target import Target
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from kappa_api.function import path_problem
from kappa_operator.archive import ArchiveError, Limits, unpack
from kappa_runtime.websocket import (
    CONTINUATION,
    INVALID_TEXT,
    Binary,
    Close,
    FrameReader,
    Ping,
    Pong,
    ProtocolError,
    Text,
)

# --- archives ---------------------------------------------------------------------------------------------------------
LIMITS = Limits(packed=1 << 20, unpacked=20_000, files=5)
_NAMES = st.sampled_from(
    [
        "main.py",
        "a",
        "a/b",
        "a/b/c.py",
        "./main.py",
        "../x",
        "/etc/x",
        "a//b",
        "a\\b",
        "é.py",
        "e\u0301.py",
        "C:x",
        "a\n",
        "x" * 300,
        "",
    ]
)
_DATA = st.one_of(st.binary(max_size=40), st.integers(0, 60_000).map(bytes))
_TYPES = st.sampled_from(
    [tarfile.REGTYPE] * 6
    + [
        tarfile.AREGTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
    ]
    + [tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"Z"]
)
_MODES = st.sampled_from(
    [0] * 4 + [stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFCHR, stat.S_IFSOCK]
)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    entries = draw(st.lists(st.tuples(_NAMES, _DATA), max_size=7))
    out = io.BytesIO()
    if draw(st.booleans()):
        method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
        with zipfile.ZipFile(out, "w", method) as packed:
            for name, data in entries:
                info = zipfile.ZipInfo(name or "x")
                info.external_attr, info.compress_type = draw(_MODES) << 16, method
                with warnings.catch_warnings(action="ignore"):  # of names that come twice: that is meant
                    packed.writestr(info, data)
        found = out.getvalue()
    else:
        with tarfile.open(fileobj=out, mode="w", format=draw(st.sampled_from([0, 1, 2]))) as tarred:
            for name, data in entries:
                member = tarfile.TarInfo(name or "x")
                member.type, member.size, member.linkname = draw(_TYPES), len(data), draw(_NAMES)
                try:
                    tarred.addfile(member, io.BytesIO(data))
                except ValueError:  # the format cannot hold this name
                    continue
        found = draw(st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]))(out.getvalue())
    changed = bytearray(found)
    for _ in range(draw(st.integers(0, 4))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed[: draw(st.integers(0, len(changed)))]) if draw(st.integers(0, 9)) == 0 else bytes(changed)


def check_archive(data: bytes) -> None:
    try:
        files = unpack(data, LIMITS)
    except ArchiveError as error:
        if not (str(error) and error.permanent):
            raise AssertionError(f"refused for now, or without a reason: {error!r}") from error
        return
    assert 0 < len(files) <= LIMITS.files
    assert sum(map(len, files.values())) <= LIMITS.unpacked
    for path in files:
        assert path_problem(path) == "", path


# --- WebSocket frames -------------------------------------------------------------------------------------------------
MOST = 1000
_OPCODES = st.sampled_from([0, 0, 1, 1, 2, 2, 8, 9, 10, 3, 11, 15])
_PAYLOADS = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", b"\x00\x00", b"\x03", "é€".encode(), b"\xc3", b"x" * 125]
    ),
    st.sampled_from([b"x" * 126, b"x" * 400, b"x" * 1001]),
)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, tuple[int, ...]]:
    """Frames of a client, some of them wrong, and where they are cut."""
    data = b""
    for _ in range(draw(st.integers(1, 5))):
        payload, mask = draw(_PAYLOADS), draw(st.sampled_from([b"\0\0\0\0", b"abcd"]))
        first = draw(_OPCODES) | (0x80 if draw(st.integers(0, 3)) else 0) | draw(st.sampled_from([0] * 9 + [0x40]))
        size, masked = len(payload), 0x80 if draw(st.integers(0, 9)) else 0
        form = draw(st.sampled_from([0] * 9 + [126, 127]))
        if size < 126 and not form:
            head = bytes((first, masked | size))
        elif size < 1 << 16 and form != 127:
            head = bytes((first, masked | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, masked | 127)) + size.to_bytes(8, "big")
        data += head + (mask if masked else b"") + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    if draw(st.integers(0, 4)) == 0:
        changed = bytearray(data)
        changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        data = bytes(changed)
    return data, tuple(sorted(draw(st.sets(st.integers(0, len(data)), max_size=4))))


def ours(case: tuple[bytes, tuple[int, ...]]) -> tuple[list[Any], str, int]:
    data, cuts = case
    reader, events = FrameReader(MOST), []
    try:
        for start, end in pairwise([0, *cuts, len(data)]):
            events += reader.feed(data[start:end])
    except ProtocolError as error:
        return events, error.reason, error.code
    return events, "", 0


def theirs(data: bytes) -> tuple[list[Any], bool, bool]:
    """(messages, whether it failed, whether it waits for the rest of a frame) of the `websockets` library, which does
    not look at text."""
    protocol = ServerProtocol(state=State.OPEN, max_size=MOST)
    protocol.receive_data(data)
    found: list[Any] = []
    parts, kind = b"", CONTINUATION
    for frame in protocol.events_received():
        if frame.opcode is Opcode.PING:
            found.append(Ping(bytes(frame.data)))
        elif frame.opcode is Opcode.PONG:
            found.append(Pong(bytes(frame.data)))
        elif frame.opcode is Opcode.CLOSE:
            close = protocol.close_rcvd
            found.append(Close(close.code if close else 1005, close.reason if close else ""))
        else:
            kind = int(frame.opcode) or kind
            parts += bytes(frame.data)
            if frame.fin:
                found.append(parts if kind == 1 else Binary(parts))
                parts = b""
    return found, protocol.parser_exc is not None, not _whole(data)


def _whole(data: bytes) -> bool:
    """Whether the last frame is there to its end."""
    at = 0
    while at < len(data):
        second = data[at + 1] if at + 1 < len(data) else 0
        more = {126: 2, 127: 8}.get(second & 0x7F, 0)
        size = int.from_bytes(data[at + 2 : at + 2 + more]) if more else second & 0x7F
        at += 2 + more + (4 if second & 0x80 else 0) + size
    return at == len(data)


def check_frames(case: tuple[bytes, tuple[int, ...]]) -> None:
    events, reason, code = ours(case)
    whole, again, _ = ours((case[0], ()))
    assert again == reason, "cuts change what is refused"
    assert reason or whole == events, "cuts change what is read"
    expected, failed, waits = theirs(case[0])
    seen = [event.text.encode() if isinstance(event, Text) else event for event in events]
    if reason:
        # RFC 6455 wants all of these refused (5.2, 5.5, 8.1); the library lets its user look at text, and is lenient
        # about lengths that are written in more bytes than they need.
        stricter = code == INVALID_TEXT or "shortest form" in reason or "short and whole" in reason
        # A bad head is refused at once here; the library may wait for the whole frame.
        assert failed or stricter or waits, f"we refuse what websockets takes: {reason}"
    else:
        closed = bool(seen) and isinstance(seen[-1], Close)  # what follows is not looked at
        assert closed or not failed, "we take what websockets refuses"
        if failed and len(expected) == len(seen) - 1:
            seen.pop()  # RFC 6455 (5.4) lets a close come amid the pieces of a message; the library does not
        assert seen == expected[: len(seen)]
        assert closed or len(seen) == len(expected)


_WORDS = (
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"ustar\x00",
    b"ustar  ",
    b"../",
    b"GNU.sparse",
    b"path=",
)
TARGETS = (
    Target("archives", "zip and tar archives of code", archives(), check_archive, plain(_WORDS), slow=2),
    Target(
        "websocket",
        "WebSocket frames, beside the websockets library",
        frames(),
        check_frames,
        stream(),
        found=((bytes.fromhex("018000000000888000000000") + bytes(7), ()),),
    ),
)
