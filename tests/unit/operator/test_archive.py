"""Archives, sound ones and hostile ones."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from kappa_operator.archive import ArchiveError, Limits, unpack

SMALL = Limits(packed=1 << 20, unpacked=100_000, files=10)


def zipped(entries: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, data)
    return out.getvalue()


def tarred(
    entries: dict[str, bytes], mode: str = "w", change: Callable[[tarfile.TarInfo], None] = lambda info: None
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILES = {"main.py": b"x = 1\n", "lib/util.py": b""}


@pytest.mark.parametrize(
    "data",
    [
        zipped({**FILES, "lib/": b""}),
        tarred(FILES),
        tarred(FILES, "w:gz"),
        tarred(FILES, "w:bz2"),
        tarred(FILES, "w:xz"),
        tarred({f"./{name}": data for name, data in FILES.items()}),
    ],
    ids=["zip", "tar", "gz", "bz2", "xz", "dot paths"],
)
def test_sound(data: bytes) -> None:
    assert unpack(data, SMALL) == FILES


def link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


def hard(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.LNKTYPE, "main.py", 0


def device(info: tarfile.TarInfo) -> None:
    info.type = tarfile.CHRTYPE


def zip_link(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def fifo(info: tarfile.TarInfo) -> None:
    info.type = tarfile.FIFOTYPE


def strange(info: tarfile.TarInfo) -> None:
    info.type = b"Z"


def sparse(info: tarfile.TarInfo) -> None:
    info.type = tarfile.GNUTYPE_SPARSE


def zip_device(info: zipfile.ZipInfo) -> None:
    info.external_attr = (stat.S_IFBLK | 0o777) << 16


def size(value: int) -> bytes:
    return value.to_bytes(4, "little")


ENCRYPTED = b"PK\x01\x02\x14\x03\x14\0\x01\0"


def overlapping() -> bytes:
    """Many entries of the directory that all lead to the same bytes: a bomb that no single entry is."""
    data = zipped({"a": bytes(60_000)})
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    directory = b"".join(entry[:46] + bytes([98 + n]) + entry[47:] for n in range(8))
    tail = data[end : end + 8] + (8).to_bytes(2, "little") * 2 + size(len(directory)) + size(start) + b"\0\0"
    return data[:start] + directory + tail


def pax_bomb() -> bytes:
    """A header that declares (and compresses well to) far more than the limit: tarfile would read it whole."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("main.py")
        info.pax_headers = {"comment": "x" * 3_000_000}
        archive.addfile(info)
    return out.getvalue()


HOSTILE = {
    "zip with ..": (zipped({"../evil.py": b""}), "stay inside"),
    "zip with a root path": (zipped({"/etc/cron": b""}), "stay inside"),
    "zip with a backslash": (zipped({"a\\b": b""}), "backslashes"),
    "zip with a link": (zipped({"l": b"/etc/passwd"}, zip_link), "link or a device"),
    "zip bomb": (zipped({"zeros": bytes(5_000_000)}), "unpacks to more than"),
    "zip with many files": (zipped({f"f{n}": b"" for n in range(11)}), "more than 10 files"),
    "zip cut short": (zipped(FILES)[:-30], "sound"),
    "tar with ..": (tarred({"a/../../evil": b""}), "stay inside"),
    "tar with a root path": (tarred({"/evil": b""}), "stay inside"),
    "tar with a link": (tarred({"l": b""}, change=link), "link or a device"),
    "tar with a hard link": (tarred({"l": b""}, change=hard), "link or a device"),
    "tar with a device": (tarred({"d": b""}, change=device), "link or a device"),
    "tar bomb": (tarred({"zeros": bytes(5_000_000)}, "w:gz"), "unpacks to more than"),
    "tar header bomb": (pax_bomb(), "unpacks to more than"),
    "tar with many files": (tarred({f"f{n}": b"" for n in range(11)}), "more than 10 files"),
    "tar cut short": (tarred({"a": bytes(5000)}, "w:gz")[:-20], "sound"),
    "zip with a NUL": (zipped({"main.pyX.txt": b""}).replace(b"main.pyX", b"main.py\0"), "NUL byte"),
    "zip with a device": (zipped({"d": b""}, zip_device), "link or a device"),
    "zip with a folder that is a link": (zipped({"lib/": b"/etc"}, zip_link), "link or a device"),
    "zip that is encrypted": (zipped(FILES).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", ENCRYPTED), "cannot be unpacked"),
    "zip with a file below a file": (zipped({"a": b"", "a/b": b""}), "both as a file and as a folder"),
    "zip with a folder that becomes a file": (zipped({"a/b": b"", "a": b""}), "both as a file and as a folder"),
    "zip with two names for one": (zipped({"caf\u00e9.py": b"1", "cafe\u0301.py": b"2"}), "twice"),
    "zip with a line break": (zipped({"a\nb.py": b""}), "printable"),
    "zip with an escape sequence": (zipped({"\x1b[2Ja.py": b""}), "printable"),
    "zip with a right-to-left override": (zipped({"\u202eyp.a": b""}), "printable"),
    "zip with a name too long for a file system": (zipped({"\u00fc" * 200: b""}), "255 bytes"),
    "zip with a drive": (zipped({"C:/../x": b""}), "stay inside"),
    "zip with empty pieces": (zipped({"a//b": b""}), "stay inside"),
    "zip with a directory of a million": (zipped(FILES) + b"PK\x01\x02" * 1000, "more than 10 files"),
    "zip that overlaps itself": (overlapping(), "sound|more than"),
    "zip with a lying size": (zipped({"z": bytes(5_000_000)}).replace(size(5_000_000), size(5)), "sound|unpacks to"),
    "tar with a fifo": (tarred({"d": b""}, change=fifo), "link or a device"),
    "tar with an unknown type": (tarred({"d": b""}, change=strange), "link or a device|sound"),
    "tar with a sparse file": (tarred({"d": b""}, change=sparse), "link or a device|sound"),
    "tar with bytes that are no text": (tarred({"a\udcff.py": b""}), "printable"),
    "tar of zeros": (gzip.compress(bytes(5_000_000)), "holds no files"),
    "gzip in gzip": (gzip.compress(gzip.compress(bytes(5_000_000))), "sound"),
    "tar of nothing": (tarred({}), "holds no files"),
    "zip of nothing": (zipped({}), "holds no files"),
    "nothing": (b"", "sound"),
    "text": (b"<html>not found</html>" * 100, "sound"),
    "twice the same": (tarred({"a": b""})[:512] + tarred({"a": b""}), "twice"),
}


@pytest.mark.parametrize("row", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile(row: tuple[bytes, str]) -> None:
    data, words = row
    with pytest.raises(ArchiveError, match=words) as caught:
        unpack(data, SMALL)
    assert caught.value.permanent
