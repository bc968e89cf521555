"""Inputs for HTTP/1.1 parsers: requests that are nearly right, put together from what attackers play with."""

from hypothesis import strategies as st

#: What a framing attack is made of: line ends, white space and bytes that one parser forgives and another does not.
_ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n ", b"\r\n\t", b"\0\r\n"])
_SPACE = st.sampled_from([b" "] * 12 + [b"", b"\t", b"  ", b"\x0b", b"\xa0", b" \t"])
_METHODS = st.sampled_from(
    [b"GET"] * 6
    + [b"POST"] * 6
    + [b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"G\0T", b"PRI", b"X-"]
)
_TARGETS = st.sampled_from(
    [b"/fn/default/f"] * 8
    + [
        b"/fn/default/f/x?y=z",
        b"/",
        b"*",
        b"http://gw/fn/default/f",
        b"http://evil@gw/fn/default/f",
        b"//gw/fn/default/f",
        b"/fn/default/f#x",
        b"/fn/default/f/%0d%0ax",
        b"/fn/default/f/\x80\xff",
        b"/fn/default/f/../g",
        b"/fn/default/f/\x7f",
        b"gw:80",
        b"",
        b"/fn/default/f/" + b"a" * 9000,
    ]
)
_VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 12
    + [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"HTTP/01.1", b"", b"ICY/1.1"]
)
_LENGTHS = st.sampled_from(
    [
        b"0",
        b"5",
        b"5",
        b"4",
        b"+5",
        b"-5",
        b"5 ",
        b"05",
        b"0x5",
        b"5,5",
        b"5, 6",
        b"5\0",
        b"5_0",
        b"",
        b"\xb2",
        b"9" * 25,
        b"5;q",
        b'"5"',
    ]
)
_CODINGS = st.sampled_from(
    [b"chunked"] * 4
    + [
        b"Chunked",
        b"chunked ",
        b" chunked",
        b"\x0bchunked",
        b"xchunked",
        b"chunked, chunked",
        b"gzip, chunked",
        b"chunked, gzip",
    ]
    + [
        b"identity",
        b"identity, chunked",
        b"chunked;x=y",
        b'"chunked"',
        b"chunked,",
        b",chunked",
        b"",
        b"chunked\0",
        b"chun\tked",
    ]
)
_NAMES = st.sampled_from(
    [b"Content-Length"] * 6
    + [b"Transfer-Encoding"] * 6
    + [
        b"Content-Length ",
        b" Content-Length",
        b"Content_Length",
        b"content-length\t",
        b"Transfer-Encoding ",
        b"Transfer_Encoding",
    ]
    + [
        b"Transfer-Encoding\0",
        b"X: y\r\nTransfer-Encoding",
        b"Content\x2dLength",
        b"Content-Length\xa0",
        b"\x01Content-Length",
    ]
)
_OTHERS = st.sampled_from(
    [
        b"Host: gw",
        b"Host: evil",
        b"Host:",
        b"Host: gw, gw",
        b"Host: a b",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: content-length",
        b"Connection: transfer-encoding, close",
        b"Connection: upgrade\r\nUpgrade: websocket",
        b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        b"Expect: 100-continue",
        b"Expect: 200-ok",
        b"kappa-request-id: x",
        b"kappa-deadline-ms: 1",
        b"Kappa-Identity: admin",
        b"X: " + b"a" * 17000,
        b"X:y",
        b"X : y",
        b" X: y",
        b": y",
        b"X",
        b"X: \x00",
        b"X: a\rb",
        b"X: \xff\xfe",
        b"Trailer: content-length",
        b"TE: trailers",
    ]
)
_CHUNK_SIZES = st.sampled_from(
    [b"5"] * 8
    + [
        b"0",
        b"05",
        b"00000000000000005",
        b"5;ext",
        b'5;a="b"',
        b"5 ",
        b" 5",
        b"+5",
        b"-1",
        b"0x5",
        b"5_0",
        b"",
        b"g",
        b"5\0",
    ]
    + [b"ffffffffffffffff", b"10000000000000005", b"5;\n", b"5\t", b"\xb25", b"5;" + b"x" * 5000, b"4", b"6"]
)


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    pieces = []
    for _ in range(draw(st.integers(0, 3))):
        pieces.append(draw(_CHUNK_SIZES) + draw(_ENDS) + b"hello" + draw(_ENDS))
    pieces.append(draw(st.sampled_from([b"0", b"0", b"0", b"00", b"0;x", b"0 ", b""])) + draw(_ENDS))
    pieces += draw(st.lists(st.sampled_from([b"X: y\r\n", b"Content-Length: 5\r\n", b"X\r\n", b" : \r\n"]), max_size=2))
    return b"".join(pieces) + draw(_ENDS)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(_OTHERS)
    name = draw(_NAMES)
    value = draw(_LENGTHS if b"ength" in name else _CODINGS)
    return name + b":" + draw(_SPACE) + value


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines = [draw(_METHODS) + draw(_SPACE) + draw(_TARGETS) + draw(_SPACE) + draw(_VERSIONS)]
    if draw(st.integers(0, 9)):
        lines.append(b"Host: gw")
    lines += draw(st.lists(headers(), max_size=4))
    head = b"".join(line + draw(_ENDS) for line in lines) + draw(_ENDS)
    body = draw(
        st.one_of(
            st.just(b""),
            st.just(b"hello"),
            chunked_bodies(),
            st.just(b"GET /fn/default/f/smuggled HTTP/1.1\r\nHost: gw\r\n\r\n"),
        )
    )
    return head + body


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, tuple[int, ...]]:
    """What a client sends on one connection, and where it is cut into pieces."""
    data = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    if draw(st.integers(0, 4)) == 0:  # a few bytes changed anywhere
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        data = bytes(changed)
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=4))
    return data, tuple(sorted(set(cuts)))
