"""Names for the shapes that pass between modules."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]
"""A Kubernetes object as decoded JSON. Objects in the store are never changed in place: writers make new ones."""

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is the empty string."""
