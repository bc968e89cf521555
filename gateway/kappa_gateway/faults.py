"""Whether waiting for a function is in vain: its status says that nothing can serve it until somebody changes it.

Without this a call of a function whose code does not load would wait for its whole deadline, and then learn nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

Json = Any

#: Reasons of `Ready=False` that only a change of the Function, or of what it names, can end.
FINAL_REASONS: Final = frozenset({"InvalidSpec", "RuntimeNotFound", "CodeNotFound", "LoadFailed"})


def fault_of(resource: Mapping[str, Json]) -> str:
    """Why no instance will come, for the caller to read; empty when one may.

    Only a status of the newest generation counts: a spec that was just mended deserves a wait. The condition's message
    is left out: it may hold text of the function's own, and callers are not its developers.
    """
    status = resource.get("status") or {}
    if status.get("activeRevision") or status.get("observedGeneration") != resource["metadata"].get("generation"):
        return ""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            if condition.get("status") == "False" and condition.get("reason") in FINAL_REASONS:
                return f"the function cannot run ({condition['reason']}): its status says why"
            return ""
    return ""
