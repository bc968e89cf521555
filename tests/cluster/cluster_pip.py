"""What pip needs to know inside an image build: the machine's own pip settings, given to the build as mounts.

A Dockerfile then says `RUN pip install ...` and nothing else, and works with plain `docker build` as well. The settings
are read from pip at build time (its files and `PIP_*` variables), so no index address is written down anywhere in the
repository, and being mounts they do not end up in the image either.
"""

from __future__ import annotations

import ast
import configparser
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

_CA_INSIDE = "/etc/ssl/certs/ca-certificates.crt"
_CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Would break or change a build for reasons of this machine's user and not of the project.
_NOT_PASSED = {"cert", "client-cert", "cache-dir", "require-virtualenv", "user", "target", "prefix", "log"}
_MAY_BE_LOCAL = {"find-links", "index-url", "extra-index-url"}


def parse(listing: str) -> dict[str, dict[str, str]]:
    """`pip config list` output as sections. `PIP_*` variables (section `:env:`) win over files, as in pip itself."""
    sections: dict[str, dict[str, str]] = {}
    from_environment: dict[str, str] = {}
    for line in listing.splitlines():
        name, equals, quoted = line.partition("=")
        section, dot, option = name.rpartition(".")
        if not equals or not dot:
            continue
        try:
            value = str(ast.literal_eval(quoted))
        except (ValueError, SyntaxError):
            continue
        if section == ":env:":
            from_environment[option] = value
        else:
            sections.setdefault(section, {})[option] = value
    sections.setdefault("global", {}).update(from_environment)
    for options in sections.values():
        for option in _NOT_PASSED & options.keys():
            del options[option]
    return {section: options for section, options in sections.items() if options}


def local_folders(sections: Mapping[str, Mapping[str, str]]) -> list[Path]:
    """Folders of this machine that the settings point to and that exist: they are mounted at the same path."""
    found: set[Path] = set()
    for options in sections.values():
        for option in _MAY_BE_LOCAL & options.keys():
            for word in options[option].split():
                parts = urlsplit(word)
                if parts.scheme not in ("", "file"):
                    continue
                path = Path(unquote(parts.path))
                # An index's pages point to files beside it (../../files), so its parent is what has to be there.
                if option != "find-links" and path.parent.parent != path.parent:
                    path = path.parent
                if path.is_absolute() and path.is_dir() and path != Path("/"):
                    found.add(path)
    return sorted(found)


def without_missing(sections: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The settings without local places that do not exist, which pip would warn about once per package."""

    def present(word: str) -> bool:
        parts = urlsplit(word)
        return parts.scheme not in ("", "file") or Path(unquote(parts.path)).exists()

    kept: dict[str, dict[str, str]] = {}
    for section, options in sections.items():
        for option, value in options.items():
            if option in _MAY_BE_LOCAL:
                value = "\n".join(word for word in value.split() if present(word))
            if value:
                kept.setdefault(section, {})[option] = value
    return kept


def certificates(environment: Mapping[str, str], configured: str | None) -> Path | None:
    """The bundle of certificate authorities that this machine's pip trusts, if it is not just the default."""
    for candidate in (configured, *(environment.get(name) for name in _CA_VARIABLES), _CA_INSIDE):
        if candidate and Path(candidate).is_file():
            return Path(candidate).resolve()
    return None


@contextmanager
def build_volumes() -> Iterator[list[str]]:
    """The `--volume` values for `buildah bud`. The folder behind them is gone afterwards."""
    listing = _pip_config_list()
    sections = without_missing(parse(listing))
    bundle = certificates(os.environ, _configured_certificates(listing))
    if bundle:
        sections.setdefault("global", {})["cert"] = _CA_INSIDE
    config = configparser.RawConfigParser()
    config.read_dict(sections)
    with tempfile.TemporaryDirectory(prefix="kappa-pip-") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "pip.conf")
        with path.open("w") as file:
            config.write(file)
        volumes = [f"{path}:/etc/pip.conf:ro", *(f"{place}:{place}:ro" for place in local_folders(sections))]
        if bundle:
            volumes.append(f"{bundle}:{_CA_INSIDE}:ro")
        yield volumes


def _configured_certificates(listing: str) -> str | None:
    for line in listing.splitlines():
        if line.startswith("global.cert="):
            return str(ast.literal_eval(line.partition("=")[2]))
    return None


def _pip_config_list() -> str:
    for command in (["pip"], ["pip3"], ["python3", "-m", "pip"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "config", "list"], capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout
    return ""
