"""Which subjects, topics and buckets of the platform's own NATS a namespace may name: its own, and what the admin
shares (KAPPA_SHARED_SUBJECTS). Pure. A server of somebody else's, named in a Secret, knows its own rules.

Subjects begin with `<namespace>.` and MQTT topics with `<namespace>/`. Streams and buckets, whose names hold no dots,
begin with `<namespace>_`: a namespace may hold a `-`, so after `team-` there could stand the rest of a longer name.
"""

from collections.abc import Iterable
from typing import Final

#: Kappa's own, JetStream's and the servers' own, whatever the admin shares.
_RESERVED: Final = ("$", "_")
_OWN: Final = "kappa"


def subject_problem(namespace: str, subject: str, shared: Iterable[str] = ()) -> str:
    """What is wrong with reading or publishing this subject (wildcards allowed), or an empty string."""
    first = subject.partition(".")[0]
    if not subject or subject.startswith(_RESERVED) or first == _OWN:
        return f"{subject[:80]!r} is not for Functions: it belongs to the platform"
    if first == namespace and subject != first:
        return ""
    if any(_below(subject, _trimmed(prefix), ".") for prefix in shared):
        return ""
    return (
        f"{subject[:80]!r} must begin with {namespace}. (the namespace and a dot), or with a prefix that the admin "
        "shares (chart value gateway.events.sharedSubjects)"
    )


def topic_problem(namespace: str, topic: str, shared: Iterable[str] = ()) -> str:
    """As `subject_problem`, for a topic of the platform's MQTT listener. What is shared is written as a subject."""
    levels = topic.split("/")
    if any("." in level for level in levels):
        return f"{topic[:80]!r}: a dot in a topic is no part of a NATS subject; use another character"
    if not topic or topic.startswith(_RESERVED) or levels[0] == _OWN:
        return f"{topic[:80]!r} is not for Functions: it belongs to the platform"
    if levels[0] == namespace and len(levels) > 1:
        return ""
    if any(_below(topic, _trimmed(prefix).replace(".", "/"), "/") for prefix in shared):
        return ""
    return (
        f"{topic[:80]!r} must begin with {namespace}/ (the namespace and a slash), or with a prefix that the admin "
        "shares (chart value gateway.events.sharedSubjects)"
    )


def name_problem(namespace: str, name: str, shared: Iterable[str] = ()) -> str:
    """As `subject_problem`, for the name of a stream or of a bucket."""
    own, lower = name.startswith(f"{namespace}_"), name.lower()
    # Kappa's buckets are `kappa-<word>`: a namespace `kappa-...` has an underscore after it, and so none of their names
    kept = ("kv_", "obj_", "mqtt_", _OWN + "_") if own else ("kv_", "obj_", "mqtt_", _OWN + "_", _OWN + "-")
    if not name or name.startswith(_RESERVED) or lower.startswith(kept):
        return f"{name[:80]!r} is not for Functions: it belongs to the platform"
    if own:
        return ""
    if any(name == prefix or _below(name, prefix.rstrip("_"), "_") for prefix in map(_trimmed, shared)):
        return ""
    return (
        f"{name[:80]!r} must begin with {namespace}_ (the namespace and an underscore), or be one that the admin "
        "shares (chart value gateway.events.sharedSubjects)"
    )


def _trimmed(prefix: str) -> str:
    return prefix.strip().removesuffix(">").rstrip(".")


def _below(name: str, prefix: str, separator: str) -> bool:
    return bool(prefix) and (name == prefix or name.startswith(prefix + separator))
