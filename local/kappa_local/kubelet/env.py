"""A container's environment and command line, from its spec and the objects it refers to. Pure."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kappa_local.types import Obj

Lookup = Callable[[str, str], Obj | None]
"""(plural, name) -> the ConfigMap or Secret of that name in the pod's namespace."""

_REFERENCE = re.compile(r"\$\$|\$\(([-A-Za-z0-9_.]+)\)")


class ConfigError(Exception):
    """The container cannot be made yet: what it refers to does not exist (waiting reason
    CreateContainerConfigError).
    """


@dataclass(frozen=True)
class PodFacts:
    """What only the kubelet knows about a pod when it starts."""

    ip: str
    node: str
    host_ip: str


def environment(pod: Obj, container: Obj, facts: PodFacts, lookup: Lookup) -> dict[str, str]:
    """The variables of `envFrom` and `env`, in that order; later ones win and may refer to earlier ones as $(NAME)."""
    env: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        env.update(_from_source(source, lookup))
    for item in container.get("env") or ():
        name = item["name"]
        if item.get("valueFrom"):
            value = _value_from(item["valueFrom"], pod, container, facts, lookup)
            if value is not None:
                env[name] = value
        else:
            env[name] = expand(str(item.get("value") or ""), env)
    return env


def expand(text: str, env: Mapping[str, str]) -> str:
    """$(NAME) by its value, $$ by $; an unknown name stays as it is."""

    def replace(found: re.Match[str]) -> str:
        if found.group(0) == "$$":
            return "$"
        return env.get(found.group(1), found.group(0))

    return _REFERENCE.sub(replace, text)


def secret_data(secret: Obj) -> dict[str, bytes]:
    return {key: base64.b64decode(value or "") for key, value in (secret.get("data") or {}).items()}


def config_data(config_map: Obj) -> dict[str, bytes]:
    plain = {key: str(value).encode() for key, value in (config_map.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (config_map.get("binaryData") or {}).items()}
    return {**plain, **binary}


def _from_source(source: Obj, lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for field, plural in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
        ref = source.get(field)
        if ref is None:
            continue
        found = lookup(plural, ref["name"])
        if found is None:
            if ref.get("optional"):
                continue
            raise ConfigError(f'{plural[:-1]} "{ref["name"]}" not found')
        data = secret_data(found) if field == "secretRef" else config_data(found)
        return {prefix + key: value.decode(errors="replace") for key, value in data.items()}
    return {}


def _value_from(source: Obj, pod: Obj, container: Obj, facts: PodFacts, lookup: Lookup) -> str | None:
    if ref := source.get("fieldRef"):
        return field(pod, ref["fieldPath"], facts)
    if ref := source.get("resourceFieldRef"):
        return resource_field(pod, container, ref)
    for name, plural, label in (("configMapKeyRef", "configmaps", "ConfigMap"), ("secretKeyRef", "secrets", "Secret")):
        if ref := source.get(name):
            return _key(ref, plural, label, pod["metadata"]["namespace"], lookup)
    raise ConfigError(f"unsupported valueFrom: {', '.join(source)}")


def _key(ref: Obj, plural: str, label: str, namespace: str, lookup: Lookup) -> str | None:
    found = lookup(plural, ref["name"])
    if found is None:
        if ref.get("optional"):
            return None
        raise ConfigError(f'{plural[:-1]} "{ref["name"]}" not found')
    data = secret_data(found) if plural == "secrets" else config_data(found)
    if ref["key"] not in data:
        if ref.get("optional"):
            return None
        raise ConfigError(f"couldn't find key {ref['key']} in {label} {namespace}/{ref['name']}")
    return data[ref["key"]].decode(errors="replace")


def field(pod: Obj, path: str, facts: PodFacts) -> str:
    """A downward API field."""
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((pod["metadata"].get(found.group(1)) or {}).get(found.group(2), ""))
    known = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"].get("namespace", ""),
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName") or "default",
        "status.podIP": facts.ip,
        "status.podIPs": facts.ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in known:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(known[path])


def resource_field(pod: Obj, container: Obj, ref: Obj) -> str:
    """A resource limit or request in units of its divisor, rounded up."""
    name = ref.get("containerName")
    if name:
        container = next((c for c in pod["spec"]["containers"] if c["name"] == name), container)
    kind, _, resource = str(ref["resource"]).partition(".")
    text = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    value = quantity(str(text)) if text is not None else 0.0
    divisor = quantity(str(ref.get("divisor") or "1")) or 1.0
    return str(math.ceil(value / divisor))


_SUFFIXES = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "u": 1e-6,
    "n": 1e-9,
}


def quantity(text: str) -> float:
    """A Kubernetes quantity (`250m`, `1.5Gi`, `1e3`) as a number."""
    found = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?\d+)?)([a-zA-Z]*)", text.strip())
    if found is None or found.group(2) not in _SUFFIXES:
        raise ConfigError(f"not a quantity: {text!r}")
    return float(found.group(1)) * _SUFFIXES[found.group(2)]
