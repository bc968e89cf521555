"""Code archives: fetched over https within limits, checked against their SHA-256, unpacked in memory without trusting
them.

Nothing of an archive is believed: not the sizes it declares (a zip bomb lies), not its paths, not its entry types.
Bytes are counted as they come out of the decompressor.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import ssl
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, cast

import aiohttp
from yarl import URL

from kappa_api.function import Archive, path_problem

CHUNK = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an archive may have: bytes as sent, bytes unpacked, files; and the seconds that fetching may
    take."""

    packed: int = 50 << 20
    unpacked: int = 250 << 20
    files: int = 10_000
    seconds: float = 60.0


class ArchiveError(Exception):
    """The archive cannot be used. `permanent`: fetching the same one again cannot help."""

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        self.permanent = permanent
        super().__init__(message)


async def fetch(archive: Archive, limits: Limits, context: ssl.SSLContext) -> bytes:
    """The archive's bytes, which have the digest asked for. Follows redirects only to https. Raises ArchiveError."""
    timeout = aiohttp.ClientTimeout(total=limits.seconds, sock_connect=10)
    try:
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session:
            url = URL(archive.url)
            for _ in range(MAX_REDIRECTS + 1):
                if url.scheme != "https":
                    raise ArchiveError(f"{archive.url} redirects away from https")
                async with session.get(url, ssl=context, allow_redirects=False) as answer:
                    location = answer.headers.get("Location")
                    if answer.status in REDIRECTS and location:
                        url = url.join(URL(location))
                        continue
                    return await _body(answer, archive, limits)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ArchiveError(f"cannot fetch {archive.url}: {error or type(error).__name__}", permanent=False) from error
    raise ArchiveError(f"{archive.url} redirects more than {MAX_REDIRECTS} times")


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
        if data[:2] == b"PK":
            return _unzip(data, limits)
        return _untar(data, limits)
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


class _Files:
    """Takes files in and enforces the limits on what has really come out."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.found: dict[str, bytes] = {}
        self.size = 0

    def add(self, path: str, source: IO[bytes]) -> None:
        path = path.removeprefix("./")
        if problem := path_problem(path):
            raise ArchiveError(f"holds the path {path[:200]!r}, which {problem}")
        if path in self.found:
            raise ArchiveError(f"holds {path!r} twice")
        if len(self.found) >= self.limits.files:
            raise ArchiveError(f"holds more than {self.limits.files} files")
        parts = []
        while chunk := source.read(CHUNK):
            self.size += len(chunk)
            if self.size > self.limits.unpacked:
                raise ArchiveError(f"unpacks to more than {self.limits.unpacked >> 20} MiB")
            parts.append(chunk)
        self.found[path] = b"".join(parts)


def _unzip(data: bytes, limits: Limits) -> dict[str, bytes]:
    files = _Files(limits)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        if len(packed.infolist()) > 2 * limits.files:
            raise ArchiveError(f"holds more than {limits.files} files")
        for entry in packed.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if entry.is_dir():
                continue
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
