"""The platform secrets of a process: what signs, what is accepted, and what a change of the files does."""

import logging
from pathlib import Path

import pytest

from kappa_api.keyring import Keyring, KeyringError, key_id, read_secret
from kappa_api.tokens import internal_token, pod_token


def bearer(token: str) -> str:
    return f"Bearer {token}"


def test_one_secret() -> None:
    keys = Keyring(b"old")
    assert (keys.current, keys.internal()) == (b"old", (internal_token(b"old"),))
    assert keys.accepts_internal(bearer(internal_token(b"old")))
    assert not keys.reload()
    for wrong in ("", "Bearer", "Bearer ", bearer(internal_token(b"new")), bearer("old"), internal_token(b"old")):
        assert not keys.accepts_internal(wrong)


def test_a_rotation(tmp_path: Path) -> None:
    current, previous = tmp_path / "secret", tmp_path / "previous"
    current.write_text("old\n")
    keys = Keyring(*read_secret({"KAPPA_PLATFORM_SECRET_FILE": str(current)}))
    assert keys.ids == (key_id(b"old"),)

    current.write_text("new")
    previous.write_text("old")
    assert keys.reload()
    assert not keys.reload()
    assert keys.current == b"new"
    assert keys.internal() == (internal_token(b"new"), internal_token(b"old"))
    assert all(keys.accepts_internal(bearer(internal_token(secret))) for secret in (b"old", b"new"))
    assert not keys.accepts_internal(bearer(internal_token(b"other")))
    # The token of the secret that the pod was made with comes first; unknown ids get the current one first.
    both = [pod_token(b"new", "ns", "p"), pod_token(b"old", "ns", "p")]
    assert list(keys.for_pod("ns", "p", key_id(b"old"))) == both[::-1]
    assert list(keys.for_pod("ns", "p", key_id(b"new"))) == both
    assert list(keys.for_pod("ns", "p")) == both

    previous.unlink()
    assert keys.reload()
    assert not keys.accepts_internal(bearer(internal_token(b"old")))


@pytest.mark.parametrize("content", [None, "", "\n "])
def test_a_file_that_is_gone_or_empty_changes_nothing(
    content: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current = tmp_path / "secret"
    current.write_text("old")
    keys = Keyring(b"old", str(current))
    current.unlink() if content is None else current.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert not keys.reload()
        assert not keys.reload()
    assert keys.current == b"old"
    assert len(caplog.records) == (content is None)  # told once, not every five seconds


def test_the_same_secret_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "previous").write_text("s")
    keys = Keyring(b"s", str(tmp_path / "secret"))
    assert keys.ids == (key_id(b"s"),)
    assert not keys.reload()


def test_neither_repr_nor_log_tells_a_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secret"
    path.write_text("hush-hush")
    keys = Keyring(b"first-one", str(path))
    with caplog.at_level(logging.DEBUG):
        keys.reload()
    said = repr(keys) + caplog.text
    assert key_id(b"hush-hush") in said
    for secret in (b"hush-hush", b"first-one"):
        assert secret.decode() not in said
        assert internal_token(secret) not in said


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "set KAPPA_PLATFORM_SECRET or KAPPA_PLATFORM_SECRET_FILE"),
        ({"KAPPA_PLATFORM_SECRET_FILE": "/does/not/exist"}, "cannot read /does/not/exist"),
        ({"KAPPA_PLATFORM_SECRET_FILE": "/dev/null"}, "is empty"),
    ],
)
def test_no_secret(env: dict[str, str], words: str) -> None:
    with pytest.raises(KeyringError, match=words):
        read_secret(env)
