"""Archives, sound ones and hostile ones."""

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
