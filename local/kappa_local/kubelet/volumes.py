"""A pod's volumes as directories. Mounts are links below the pod's root: <root><mountPath> -> the volume.

Without root a process cannot see another file system than its parent, so a program that wants its mounts here looks
below $KAPPA_LOCAL_MOUNT_ROOT. Contents are written once, at start; a later change of a ConfigMap or Secret does not
reach them.
"""

from __future__ import annotations

import os
from pathlib import Path

from kappa_local.kubelet.env import ConfigError, Lookup, PodFacts, config_data, field, resource_field, secret_data
from kappa_local.types import Obj

_MODE = 0o644


def make(pod: Obj, base: Path, facts: PodFacts, lookup: Lookup) -> None:
    """Makes every volume below `base`/volumes. Raises ConfigError when one refers to what does not exist."""
    for volume in pod["spec"].get("volumes") or ():
        target = base / "volumes" / volume["name"]
        if host := volume.get("hostPath"):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_symlink():
                target.symlink_to(host["path"])
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name, (data, mode) in _contents(volume, pod, facts, lookup).items():
            path = _inside(target, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(mode)


def mount(container: Obj, base: Path) -> Path:
    """Links the container's mounts below its root and returns that root."""
    root = base / "roots" / str(container["name"])
    root.mkdir(parents=True, exist_ok=True)
    for item in container.get("volumeMounts") or ():
        source = base / "volumes" / item["name"]
        if item.get("subPath"):
            source = _inside(source, item["subPath"])
            if not source.exists():
                source.mkdir(parents=True)
        link = _inside(root, str(item["mountPath"]).strip("/"))
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() and not link.exists():
            link.symlink_to(source)
    return root


def _inside(base: Path, name: str) -> Path:
    """`base`/`name`, refused when it would lie outside."""
    path = Path(os.path.normpath(base / name))
    if not path.is_relative_to(base):
        raise ConfigError(f"path {name!r} leaves its volume")
    return path


Files = dict[str, tuple[bytes, int]]


def _contents(source: Obj, pod: Obj, facts: PodFacts, lookup: Lookup) -> Files:
    if (config_map := source.get("configMap")) is not None:
        return _keys(config_map, config_map["name"], "configmaps", lookup)
    if (secret := source.get("secret")) is not None:
        return _keys(secret, secret.get("secretName") or secret.get("name"), "secrets", lookup)
    if (downward := source.get("downwardAPI")) is not None:
        return _downward(downward, pod, facts)
    if (projected := source.get("projected")) is not None:
        files: Files = {}
        for part in projected.get("sources") or ():
            files.update(_contents(part, pod, facts, lookup))
        return files
    if source.keys() & {"emptyDir", "serviceAccountToken"} or source.keys() <= {"name"}:
        return {}
    raise ConfigError(
        f"volume {source.get('name')!r}: kappa_local has no {', '.join(source.keys() - {'name'})} volumes"
    )


def _keys(source: Obj, name: str, plural: str, lookup: Lookup) -> Files:
    found = lookup(plural, name)
    mode = source.get("defaultMode") or _MODE
    if found is None:
        if source.get("optional"):
            return {}
        raise ConfigError(f'{plural[:-1]} "{name}" not found')
    data = secret_data(found) if plural == "secrets" else config_data(found)
    items = source.get("items")
    if not items:
        return {key: (value, mode) for key, value in data.items()}
    files: Files = {}
    for item in items:
        if item["key"] in data:
            files[item["path"]] = (data[item["key"]], item.get("mode") or mode)
        elif not source.get("optional"):
            raise ConfigError(f"references non-existent {plural[:-1]} key: {item['key']}")
    return files


def _downward(source: Obj, pod: Obj, facts: PodFacts) -> Files:
    files: Files = {}
    for item in source.get("items") or ():
        if ref := item.get("fieldRef"):
            if ref["fieldPath"] in ("metadata.labels", "metadata.annotations"):
                values = pod["metadata"].get(ref["fieldPath"].split(".")[1]) or {}
                text = "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
            else:
                text = field(pod, ref["fieldPath"], facts)
        else:
            text = resource_field(pod, pod["spec"]["containers"][0], item["resourceFieldRef"])
        files[item["path"]] = (text.encode(), item.get("mode") or _MODE)
    return files
