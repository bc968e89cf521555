"""Whose a pod is: by the owner reference that only the operator sets together with the labels.

Labels alone prove nothing: whoever may create pods in a namespace can label them as he likes. Operator and gateway take
a pod only if the Function (or, while it is in a pool, the Runtime) that its labels name is also its controller.
"""

from collections.abc import Mapping
from typing import Any

from kappa_api import names

Json = Any


def controller(meta: Mapping[str, Json]) -> Mapping[str, Json]:
    """The owner reference of a pod's controller, when that is a resource of ours; else an empty object."""
    for reference in meta.get("ownerReferences") or ():
        if reference.get("controller") and str(reference.get("apiVersion", "")).partition("/")[0] == names.GROUP:
            found: Mapping[str, Json] = reference
            return found
    return {}


def controls(reference: Mapping[str, Json], labels: Mapping[str, Json]) -> bool:
    """Whether the controller is the one that the labels name: the Function, or for a pod without one its Runtime."""
    function, runtime = labels.get(names.LABEL_FUNCTION), labels.get(names.LABEL_RUNTIME)
    kind, name = (names.FUNCTION_KIND, function) if function else (names.RUNTIME_KIND, runtime)
    return bool(name) and reference.get("kind") == kind and reference.get("name") == name
