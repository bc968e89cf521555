"""The environment, read once."""

import pytest

from kappa_runtime.settings import Settings, from_environment


def test_the_pods_environment():
    env = {
        "POD_IP": "127.0.0.9",
        "PORT": "9000",
        "POD_NAME": "p",
        "KAPPA_POD_TOKEN": "t",
        "TMPDIR": "/x",
        "KAPPA_RUNTIME_GRACE_SECONDS": "0.5",
        "KAPPA_RUNTIME_MAX_HEAD_BYTES": "10",
        "KAPPA_RUNTIME_HOST": "not a number: ignored",
    }
    assert from_environment(env) == Settings(
        host="127.0.0.9", port=9000, token="t", pod_name="p", temp_dir="/x", grace_seconds=0.5, max_head_bytes=10
    )
    assert "KAPPA_POD_TOKEN" not in env


def test_defaults():
    assert from_environment({}) == Settings()
    assert Settings().keep_alive_seconds > 75  # longer than the gateway keeps a connection in its pool


@pytest.mark.parametrize("env", [{"PORT": "http"}, {"KAPPA_RUNTIME_GRACE_SECONDS": "soon"}])
def test_what_is_no_number(env):
    with pytest.raises(ValueError, match=r"http|soon"):
        from_environment(env)
