"""`$(NAME)` in environment values, for functions in pool pods: there the kubelet has no part in it.

The rules of Kubernetes: a reference to a variable defined before is replaced, any other stays as it is, `$$` stands for
one `$` and so keeps what follows from being a reference.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Json = Any

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


def expanded(entries: Iterable[Mapping[str, Json]], before: Mapping[str, str]) -> dict[str, str]:
    """The plain variables of a container's `env`, in order. `before`: variables that the pod has already."""
    known = dict(before)
    found: dict[str, str] = {}
    for entry in entries:
        if "valueFrom" not in entry:
            name = str(entry["name"])
            found[name] = known[name] = _expand(str(entry.get("value") or ""), known)
    return found


def _expand(text: str, known: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return known.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)
