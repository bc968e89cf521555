"""`secretRef` of a source: a Secret of type kappa.dev/source, in the Trigger's namespace, with its credentials."""

from kappa_api.callers import SECRET_NAME_PATTERN
from kappa_api.fields import Reader


def read_secret_ref(parent: Reader, *, required: bool) -> str:
    """The name under `secretRef`, empty when it is absent."""
    reader = parent.child("secretRef")
    if "secretRef" not in parent and not required:
        return ""
    hint = "the name of a Secret in this namespace"
    name = reader.string("name", required=True, pattern=SECRET_NAME_PATTERN, hint=hint)
    reader.unknown()
    return name
