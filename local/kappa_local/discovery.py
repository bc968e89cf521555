"""Discovery: which groups, versions and resources there are, in the documents that clients read first. Pure."""

from __future__ import annotations

import platform

from kappa_local.resources import Registry, Resource
from kappa_local.types import Obj

GIT_VERSION = "v1.32.0+kappa-local"
"""kubectl compares this with its own version. 1.32 is the release whose API is followed; pods and apps are a subset."""

_SCALE = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
_SUBRESOURCES: dict[str, tuple[Obj, list[str]]] = {
    "log": ({"kind": "Pod"}, ["get"]),
    "eviction": ({"group": "policy", "version": "v1", "kind": "Eviction"}, ["create"]),
    "token": ({"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}, ["create"]),
}


def version() -> Obj:
    return {
        "major": "1",
        "minor": "32",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "python",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def core_versions(address: str) -> Obj:
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def groups(registry: Registry) -> Obj:
    listed = [group(registry, name) for name in registry.group_versions() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def group(registry: Registry, name: str, *, alone: bool = False) -> Obj:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version} for version in registry.group_versions()[name]
    ]
    head = {"kind": "APIGroup", "apiVersion": "v1"} if alone else {}
    return {**head, "name": name, "versions": versions, "preferredVersion": versions[0]}


def resources(registry: Registry, group_name: str, version_name: str) -> Obj:
    group_version = f"{group_name}/{version_name}" if group_name else version_name
    listed = [entry for resource in registry.resources(group_name, version_name) for entry in _entries(resource)]
    head = {"kind": "APIResourceList", "apiVersion": "v1"} if group_name else {"kind": "APIResourceList"}
    return {**head, "groupVersion": group_version, "resources": listed}


def _entries(resource: Resource) -> list[Obj]:
    base: Obj = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        base["shortNames"] = list(resource.short_names)
    if resource.categories:
        base["categories"] = list(resource.categories)
    listed = [base]

    def add(name: str, verbs: list[str], target: Obj) -> None:
        common = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
        listed.append({**common, **target, "verbs": verbs})

    if resource.status:
        add("status", ["get", "patch", "update"], {"kind": resource.kind})
    if resource.scale is not None:
        add("scale", ["get", "patch", "update"], _SCALE)
    for name in resource.subresources:
        target, verbs = _SUBRESOURCES[name]
        add(name, verbs, target)
    return listed
