"""What sources of every kind take from a Secret in the same way: that it is there, and a TLS client's certificate."""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kappa_gateway.events.source import SourceError


def needed(secret: Mapping[str, bytes] | None, name: str) -> Mapping[str, bytes]:
    """The Secret's data. Raises SourceError when it cannot be had."""
    if secret is None:
        raise SourceError(f"the Secret {name} of type kappa.dev/source does not exist, or the gateway may not read it")
    return secret


def check_pair(keys: Collection[str], name: str) -> None:
    """A certificate goes with its key. Raises SourceError."""
    if ("tls.crt" in keys) != ("tls.key" in keys):
        raise SourceError(f"the Secret {name} must hold tls.crt and tls.key, or none of them")


@contextmanager
def as_files(contents: Mapping[str, bytes]) -> Iterator[dict[str, str]]:
    """The path of each, for libraries that take certificates from files only: there for the time of the block, for
    this user alone."""
    if not contents:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="kappa-source-") as folder:
        paths = {key: Path(folder, key) for key in contents}
        for key, path in paths.items():
            path.touch(mode=0o600)
            path.write_bytes(contents[key])
        yield {key: str(path) for key, path in paths.items()}
