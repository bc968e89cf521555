"""The kubeconfig that points at an embedded cluster. Pure."""

from __future__ import annotations

import yaml

NAME = "kappa-local"


def render(server: str, token: str | None) -> str:
    """`server` is the URL of the API. kubectl asks for a user even where none is needed."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": {"server": server}}],
            "users": [{"name": NAME, "user": {"token": token} if token else {"username": NAME, "password": "none"}}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
            "current-context": NAME,
        },
        sort_keys=False,
    )
