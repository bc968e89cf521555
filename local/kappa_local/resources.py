"""What the server serves: resources as values, the table of built-in ones, and the registry that CRDs extend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kappa_local.schema import Node, builtin

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
REVIEW_VERBS = ("create",)

Rule = Literal["path", "subdomain", "label", "label1035"]
"""Which names are allowed: `subdomain` DNS names, `label` one part of a DNS name, `path` anything that fits in a
URL.
"""


@dataclass(frozen=True)
class Column:
    """A printer column. `path` is a JSONPath below the object ('.spec.x'); built-in tables fill their cells in code."""

    name: str
    type: str = "string"
    path: str = ""
    priority: int = 0
    description: str = ""
    format: str = ""


@dataclass(frozen=True)
class Scale:
    """Where the scale subresource finds its numbers, as dotted paths below the object ('spec.replicas')."""

    spec_replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    selector: str | None = None


@dataclass(frozen=True)
class Resource:
    """One served resource in one version. Versions of one resource share `table`."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    schema: Node
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    status: bool = False
    scale: Scale | None = None
    subresources: tuple[str, ...] = ()
    """Further subresources by name (log, eviction): the server has code for each."""
    fields: tuple[str, ...] = ()
    """Paths that a field selector may use besides metadata.name and metadata.namespace."""
    columns: tuple[Column, ...] | None = None
    custom: bool = False
    generation: bool = False
    """Whether metadata.generation counts changes of the spec."""
    names: Rule = "subdomain"
    storage_version: str = ""
    stored_as: tuple[str, str] | None = None
    """(group, version) whose table holds the objects when it is another API's: events.k8s.io shares core events."""
    definition: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_api_version(self) -> str:
        group, version = self.stored_as or (self.group, self.storage_version or self.version)
        return f"{group}/{version}" if group else version

    @property
    def table(self) -> str:
        group = self.stored_as[0] if self.stored_as else self.group
        return f"{self.plural}.{group}"

    @property
    def list_name(self) -> str:
        return self.list_kind or f"{self.kind}List"


def _core(kind: str, plural: str, short: str = "", **options: Any) -> Resource:
    return _row("", "v1", kind, plural, short, package="io.k8s.api.core.v1", **options)


def _row(group: str, version: str, kind: str, plural: str, short: str = "", **options: Any) -> Resource:
    package = options.pop("package", f"io.k8s.api.{group.split('.')[0]}.{version}")
    definition = f"{package}.{kind}"
    values: dict[str, Any] = {
        "namespaced": True,
        "schema": builtin(definition),
        "short_names": tuple(short.split()),
        "definition": definition,
        **options,
    }
    return Resource(group=group, version=version, plural=plural, singular=kind.lower(), kind=kind, **values)


def _review(group: str, kind: str, plural: str) -> Resource:
    anything = Node({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {})
    return Resource(group, "v1", plural, kind.lower(), kind, False, anything, verbs=REVIEW_VERBS)


_INVOLVED = tuple(
    f"involvedObject.{name}"
    for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
)
_REGARDING = tuple(f"regarding.{path.split('.')[1]}" for path in _INVOLVED)
_POD_FIELDS = (
    "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork "
    "status.phase status.podIP status.nominatedNodeName"
)
_WORKLOAD: dict[str, Any] = {"status": True, "generation": True}
_RBAC = "rbac.authorization.k8s.io"


def builtin_resources() -> tuple[Resource, ...]:
    """Every built-in resource. Those without a controller here are kept as they are: stored and served, nothing
    acts on them.
    """
    return (
        _core("Namespace", "namespaces", "ns", namespaced=False, status=True, fields=("status.phase",), names="label"),
        _core("Node", "nodes", "no", namespaced=False, status=True, fields=("spec.unschedulable",)),
        _core(
            "Pod",
            "pods",
            "po",
            status=True,
            subresources=("log", "eviction"),
            fields=tuple(_POD_FIELDS.split()),
            categories=("all",),
        ),
        _core("ConfigMap", "configmaps", "cm"),
        _core("Secret", "secrets", fields=("type",)),
        _core(
            "Service",
            "services",
            "svc",
            status=True,
            names="label1035",
            categories=("all",),
            fields=("spec.type", "spec.clusterIP"),
        ),
        _core("ServiceAccount", "serviceaccounts", "sa", subresources=("token",)),
        _core("Event", "events", "ev", fields=(*_INVOLVED, "reason", "source", "type", "reportingComponent")),
        _core("Endpoints", "endpoints", "ep"),
        _core("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", status=True),
        _core("ResourceQuota", "resourcequotas", "quota", status=True),
        _core("LimitRange", "limitranges", "limits"),
        _row("apps", "v1", "Deployment", "deployments", "deploy", scale=Scale(), categories=("all",), **_WORKLOAD),
        _row("apps", "v1", "ReplicaSet", "replicasets", "rs", scale=Scale(), categories=("all",), **_WORKLOAD),
        _row("apps", "v1", "StatefulSet", "statefulsets", "sts", scale=Scale(), categories=("all",), **_WORKLOAD),
        _row("apps", "v1", "DaemonSet", "daemonsets", "ds", categories=("all",), **_WORKLOAD),
        _row("batch", "v1", "Job", "jobs", categories=("all",), **_WORKLOAD),
        _row("batch", "v1", "CronJob", "cronjobs", "cj", categories=("all",), **_WORKLOAD),
        _row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", status=True),
        _row("coordination.k8s.io", "v1", "Lease", "leases"),
        _row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        _row(
            "events.k8s.io",
            "v1",
            "Event",
            "events",
            "ev",
            stored_as=("", "v1"),
            fields=(*_REGARDING, "reason", "type", "reportingController"),
        ),
        _row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", generation=True),
        _row("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", **_WORKLOAD),
        _row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", **_WORKLOAD),
        _row(_RBAC, "v1", "Role", "roles", names="path"),
        _row(_RBAC, "v1", "RoleBinding", "rolebindings", names="path"),
        _row(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False, names="path"),
        _row(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False, names="path"),
        _row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", namespaced=False),
        _row(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "crd crds",
            namespaced=False,
            package="io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
            categories=("api-extensions",),
            **_WORKLOAD,
        ),
        _review("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        _review("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        _review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews"),
        _review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews"),
        _review("authentication.k8s.io", "TokenReview", "tokenreviews"),
    )


@dataclass
class Registry:
    """Every resource served now, by group and version. CRDs add and remove; built-ins are fixed."""

    _served: dict[tuple[str, str], dict[str, Resource]] = field(default_factory=dict)
    revision: int = 0
    """Changes with the content: for caches of discovery and OpenAPI documents."""

    @classmethod
    def with_builtins(cls) -> Registry:
        registry = cls()
        for resource in builtin_resources():
            registry._served.setdefault((resource.group, resource.version), {})[resource.plural] = resource
        return registry

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version), {}).get(plural)

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        group, _, version = api_version.rpartition("/")
        return next((r for r in self.resources(group, version) if r.kind == kind and "get" in r.verbs), None)

    def any_version(self, group: str, plural: str) -> Resource | None:
        return next((r[plural] for (g, _), r in self._served.items() if g == group and plural in r), None)

    def resources(self, group: str, version: str) -> Iterable[Resource]:
        return self._served.get((group, version), {}).values()

    def has_version(self, group: str, version: str) -> bool:
        return (group, version) in self._served

    def group_versions(self) -> Mapping[str, list[str]]:
        """Group -> versions, the preferred one first."""
        groups: dict[str, list[str]] = {}
        for group, version in self._served:
            groups.setdefault(group, []).append(version)
        return {group: sorted(versions, key=version_priority) for group, versions in groups.items()}

    def everything(self) -> list[Resource]:
        return [resource for resources in self._served.values() for resource in resources.values()]

    def replace(self, group: str, plural: str, resources: Iterable[Resource]) -> None:
        """Serve exactly `resources` (the versions of one CRD) under group and plural."""
        for (served_group, version), found in list(self._served.items()):
            if served_group == group and plural in found and found[plural].custom:
                del found[plural]
                if not found:
                    del self._served[served_group, version]
        for resource in resources:
            self._served.setdefault((resource.group, resource.version), {})[resource.plural] = resource
        self.revision += 1


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, then the rest by name."""
    import re

    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if found is None:
        return (3, 0, 0, version)
    major, stage, minor = found.groups()
    rank = {None: 0, "beta": 1, "alpha": 2}[stage]
    return (rank, -int(major), -int(minor or 0), version)
