"""`secretRef` of a source: a Secret of type kappa.dev/source, in the Trigger's namespace, with its credentials."""

from typing import Final

from kappa_api.fields import Reader

SECRET_NAME: Final = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"


def read_secret_ref(parent: Reader, *, required: bool) -> str:
    """The name under `secretRef`, empty when it is absent."""
    reader = parent.child("secretRef")
    if "secretRef" not in parent and not required:
        return ""
    name = reader.string("name", required=True, pattern=SECRET_NAME, hint="the name of a Secret in this namespace")
    reader.unknown()
    return name
