"""Code archives: fetched within limits from where they may come from, checked against their SHA-256, unpacked in memory
without trusting them.

Nothing of an archive is believed: not the sizes it declares (a zip bomb lies), not its paths, not its entry types.
Bytes are counted as they come out of the decompressor. Nothing of a name server is believed either: each address is
checked (`destinations.py`) and then connected to, so that a name has no second answer to give.
"""

import asyncio
import bz2
import gzip
import hashlib
import io
import ipaddress
import lzma
import socket
import ssl
import stat
import tarfile
import unicodedata
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kappa_api.function import Archive, path_problem
from kappa_operator.destinations import Destinations

CHUNK = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
#: What begins each entry of a zip's directory.
ZIP_ENTRY = b"PK\x01\x02"


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an archive may have: bytes as sent, bytes unpacked, files; and the seconds that fetching may
    take, redirects and all. Unpacked code travels to the runtime as base64 in one message, of which it takes 64 MiB."""

    packed: int = 50 << 20
    unpacked: int = 46 << 20
    files: int = 10_000
    seconds: float = 60.0


class ArchiveError(Exception):
    """The archive cannot be used. `permanent`: fetching the same one again cannot help."""

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        self.permanent = permanent
        super().__init__(message)


class CheckedResolver(AbstractResolver):
    """Resolves a name once and passes on only addresses that may be connected to. Raises ArchiveError when even one of
    them may not: an honest name has no such address among its others."""

    def __init__(self, destinations: Destinations, inner: AbstractResolver | None = None) -> None:
        self._destinations, self._inner = destinations, inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for each in found:
            address = ipaddress.ip_address(each["host"].partition("%")[0])
            if problem := self._destinations.address_problem(host, address):
                raise ArchiveError(problem, permanent=False)  # a name can be mended
        return found

    async def close(self) -> None:
        await self._inner.close()


async def fetch(
    archive: Archive,
    limits: Limits,
    context: ssl.SSLContext,
    destinations: Destinations = Destinations(),  # noqa: B008
    resolver: AbstractResolver | None = None,
) -> bytes:
    """The archive's bytes, which have the digest asked for. Each redirect is checked like the first URL. Raises
    ArchiveError."""
    try:
        async with asyncio.timeout(limits.seconds):
            checked = CheckedResolver(destinations, resolver)
            connector = aiohttp.TCPConnector(resolver=checked, use_dns_cache=False, ssl=context, force_close=True)
            timeout = aiohttp.ClientTimeout(total=limits.seconds, sock_connect=10)
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=False, auto_decompress=False
            ) as session:
                return await _follow(session, archive, limits, context, destinations)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError) as error:
        raise ArchiveError(f"{archive.url} leads to a URL that is not valid: {error}") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        reason = f"not fetched within {limits.seconds:g} s" if isinstance(error, TimeoutError) else str(error)
        raise ArchiveError(f"cannot fetch {archive.url}: {reason or type(error).__name__}", permanent=False) from error


async def _follow(
    session: aiohttp.ClientSession,
    archive: Archive,
    limits: Limits,
    context: ssl.SSLContext,
    destinations: Destinations,
) -> bytes:
    url = _url(archive.url)
    for _ in range(MAX_REDIRECTS + 1):
        host = url.host or ""
        via = "" if str(url) == archive.url else f"{archive.url} redirects to "
        if problem := destinations.scheme_problem(url.scheme) or destinations.literal_problem(host):
            raise ArchiveError(f"{via}{problem}" if via else problem)
        async with _get(session, url, context) as answer:
            location = answer.headers.get("Location")
            if answer.status in REDIRECTS and location:
                url = _url(str(url.join(_url(location))))
                continue
            return await _body(answer, archive, limits)
    raise ArchiveError(f"{archive.url} redirects more than {MAX_REDIRECTS} times")


def _get(session: aiohttp.ClientSession, url: URL, context: ssl.SSLContext) -> Any:
    """One request. Through the admin's proxy (`HTTPS_PROXY`, `NO_PROXY`) it is the proxy that resolves the name."""
    proxy = urllib.request.getproxies_environment().get(url.scheme)
    if not proxy or urllib.request.proxy_bypass(url.host or ""):
        return session.get(url, allow_redirects=False)
    where = URL(proxy)
    login = aiohttp.BasicAuth(where.user, where.password or "") if where.user else None
    through = aiohttp.ClientSession(auto_decompress=False, timeout=session.timeout)
    return _Through(through, url, {"proxy": where.with_user(None), "proxy_auth": login, "ssl": context})


class _Through:
    """A request over a session of its own, whose resolver is for the proxy's name."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, options: dict[str, Any]) -> None:
        self._session, self._url, self._options = session, url, options

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            return await self._session.get(self._url, allow_redirects=False, **self._options)
        except BaseException:
            await self._session.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()


def _url(text: str) -> URL:
    try:
        return URL(text)
    except ValueError as error:
        raise ArchiveError(f"{text[:200]!r} is not a URL: {error}") from error


async def _body(answer: aiohttp.ClientResponse, archive: Archive, limits: Limits) -> bytes:
    if answer.status != 200:
        permanent = 400 <= answer.status < 500 and answer.status not in (408, 425, 429)
        raise ArchiveError(f"{archive.url} answered {answer.status}", permanent=permanent)
    digest = hashlib.sha256()
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_chunked(CHUNK):
        size += len(chunk)
        if size > limits.packed:
            raise ArchiveError(f"{archive.url} is larger than {limits.packed >> 20} MiB")
        digest.update(chunk)
        parts.append(chunk)
    if digest.hexdigest() != archive.sha256:
        raise ArchiveError(f"{archive.url} has sha256 {digest.hexdigest()}, not {archive.sha256}")
    return b"".join(parts)


def unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The files of a zip, tar or compressed tar, by relative path. Raises ArchiveError for anything it does not
    like."""
    try:
        files = _unzip(data, limits) if data[:2] == b"PK" else _untar(data, limits)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise ArchiveError(f"is neither a sound zip nor a sound tar: {error}") from error
    except RuntimeError as error:  # zipfile: encrypted entry
        raise ArchiveError(f"cannot be unpacked: {error}") from error
    if not files:
        raise ArchiveError("holds no files")
    return files


class _Files:
    """Takes files in and enforces the limits on what has really come out."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.found: dict[str, bytes] = {}
        self.size = 0
        self._names: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: str, source: IO[bytes]) -> None:
        path = path.removeprefix("./")
        if problem := path_problem(path):
            raise ArchiveError(f"holds the path {path[:200]!r}, which {problem}")
        # Names that a file system may take for one: whichever comes last would win.
        same = unicodedata.normalize("NFC", path)
        if same in self._names:
            raise ArchiveError(f"holds {path!r} twice")
        if same in self._folders or any(parent in self._names for parent in _parents(same)):
            raise ArchiveError(f"holds {path!r} both as a file and as a folder")
        if len(self.found) >= self.limits.files:
            raise ArchiveError(f"holds more than {self.limits.files} files")
        parts = []
        while chunk := source.read(CHUNK):
            self.size += len(chunk)
            if self.size > self.limits.unpacked:
                raise ArchiveError(f"unpacks to more than {self.limits.unpacked >> 20} MiB")
            parts.append(chunk)
        self.found[path] = b"".join(parts)
        self._names.add(same)
        self._folders.update(_parents(same))


def _parents(path: str) -> list[str]:
    pieces = path.split("/")
    return ["/".join(pieces[:end]) for end in range(1, len(pieces))]


def _unzip(data: bytes, limits: Limits) -> dict[str, bytes]:
    files = _Files(limits)
    # Before zipfile reads it: it would make an object of half a kilobyte from each entry of 46 bytes.
    if data.count(ZIP_ENTRY) > 2 * limits.files:
        raise ArchiveError(f"holds more than {limits.files} files")
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        if len(packed.infolist()) > 2 * limits.files:
            raise ArchiveError(f"holds more than {limits.files} files")
        for entry in packed.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.filename.endswith("/") and kind in (0, stat.S_IFDIR):
                continue
            if "\0" in entry.orig_filename:  # zipfile cuts there
                raise ArchiveError(f"holds the path {entry.orig_filename[:200]!r}, which has a NUL byte")
            if kind not in (0, stat.S_IFREG):
                raise ArchiveError(
                    f"holds {entry.filename!r}, which is a link or a device: only plain files are allowed"
                )
            with packed.open(entry) as source:
                files.add(entry.filename, source)
    return files.found


def _untar(data: bytes, limits: Limits) -> dict[str, bytes]:
    files = _Files(limits)
    entries = 0
    # The stream mode reads forward only: sizes are met as they come, and nothing is read twice.
    with tarfile.open(fileobj=cast(IO[bytes], _Bounded(data, limits)), mode="r|") as packed:
        for entry in packed:
            entries += 1
            if entries > 2 * limits.files:
                raise ArchiveError(f"holds more than {limits.files} files")
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                raise ArchiveError(f"holds {entry.name!r}, which is a link or a device: only plain files are allowed")
            source = packed.extractfile(entry)
            if source is not None:
                files.add(entry.name, source)
    return files.found


class _Bounded:
    """A decompressed tar that stops at the limit: tarfile reads headers whole, and their size is declared by the
    archive."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        raw = io.BytesIO(data)
        self._source: IO[bytes] = raw
        if data[:2] == b"\x1f\x8b":
            self._source = cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        elif data[:3] == b"BZh":
            self._source = bz2.BZ2File(raw)
        elif data[:6] == b"\xfd7zXZ\x00":
            self._source = lzma.LZMAFile(raw)  # noqa: SIM115
        self._left = limits.unpacked + limits.files * 1024
        self._limit = limits.unpacked

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(f"unpacks to more than {self._limit >> 20} MiB")
        return data
