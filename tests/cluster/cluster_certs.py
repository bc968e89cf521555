"""The cluster's certificates and kubeconfigs, made with the openssl command.

One authority signs everything. Who a client is, is in its certificate: the common name is the user, the organization
its group, and the role bindings that Kubernetes creates on its own do the rest.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from cluster_run import run
from cluster_settings import FIRST_SERVICE_ADDRESS, NODE_ADDRESS, NODE_NAME, Settings

_DAYS = "365"  # a test cluster that lives longer has other problems

# openssl's own configuration would mark every certificate as an authority.
_CONFIG = "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=unused\n"


@dataclass(frozen=True)
class Identity:
    """One certificate: a client's (no names), or a server's, which may be a client too."""

    file: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()
    kubeconfig: bool = False


API_SERVER = Identity(
    "apiserver",
    "kube-apiserver",
    names=(
        *("DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc"),
        *("DNS:kubernetes.default.svc.cluster.local", "DNS:localhost"),
        *(f"IP:{NODE_ADDRESS}", f"IP:{FIRST_SERVICE_ADDRESS}", "IP:127.0.0.1"),
    ),
)
KUBELET_SERVER = Identity("kubelet-server", NODE_NAME, names=(f"DNS:{NODE_NAME}", f"IP:{NODE_ADDRESS}"))
# The API server speaks to kubelets (logs, exec) with the one built-in group that may: there is no built-in binding for
# `system:kubelet-api-admin`, so it is the admins' group here.
TO_KUBELET = Identity("apiserver-to-kubelet", "kube-apiserver-to-kubelet", "system:masters")
ADMIN = Identity("admin", "kappa-admin", "system:masters", kubeconfig=True)
CONTROLLER_MANAGER = Identity("controller-manager", "system:kube-controller-manager", kubeconfig=True)
SCHEDULER = Identity("scheduler", "system:kube-scheduler", kubeconfig=True)
PROXY = Identity("proxy", "system:kube-proxy", kubeconfig=True)
KUBELET = Identity("kubelet", f"system:node:{NODE_NAME}", "system:nodes", kubeconfig=True)
# Reads Services and Endpoints: the built-in binding of `system:kube-dns` knows the cluster DNS by this name.
DNS = Identity("dns", "system:serviceaccount:kube-system:kube-dns", kubeconfig=True)

IDENTITIES = (API_SERVER, KUBELET_SERVER, TO_KUBELET, ADMIN, CONTROLLER_MANAGER, SCHEDULER, PROXY, KUBELET, DNS)


def create(settings: Settings) -> None:
    """Make the authority, all certificates, the service accounts' signing key and the kubeconfigs."""
    pki = settings.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    config = pki / "openssl.cnf"
    config.write_text(_CONFIG)
    key = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    basic: list[str | Path] = [*key, "-days", _DAYS, "-config", config]
    authority: list[str | Path] = ["-keyout", pki / "ca.key", "-out", pki / "ca.crt", "-subj", "/CN=kappa-test-cluster"]
    usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    run(["openssl", "req", "-x509", *basic, *authority, *usage])
    run(["openssl", "genrsa", "-out", pki / "service-accounts.key", "2048"])
    for identity in IDENTITIES:
        subject = (f"/O={identity.group}" if identity.group else "") + f"/CN={identity.user}"
        ends = "clientAuth" + (",serverAuth" if identity.names else "")
        extensions = ["-addext", f"extendedKeyUsage={ends}"]
        if identity.names:
            extensions += ["-addext", f"subjectAltName={','.join(identity.names)}"]
        files: list[str | Path] = ["-keyout", pki / f"{identity.file}.key", "-out", pki / f"{identity.file}.crt"]
        signed: list[str | Path] = ["-CA", pki / "ca.crt", "-CAkey", pki / "ca.key"]
        run(["openssl", "req", "-x509", *basic, *signed, *files, "-subj", subject, *extensions])
    for identity in IDENTITIES:
        if identity.kubeconfig:
            write_kubeconfig(settings, identity, pki / f"{identity.file}.kubeconfig")


def write_kubeconfig(settings: Settings, identity: Identity, target: Path) -> None:
    """Write a kubeconfig that holds its certificates, so that the file may be copied elsewhere. JSON is YAML too."""

    def data(name: str) -> str:
        return base64.b64encode((settings.pki / name).read_bytes()).decode()

    user = {
        "client-certificate-data": data(f"{identity.file}.crt"),
        "client-key-data": data(f"{identity.file}.key"),
    }
    cluster = {"server": settings.api_url, "certificate-authority-data": data("ca.crt")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kappa", "cluster": cluster}],
        "users": [{"name": identity.file, "user": user}],
        "contexts": [{"name": "kappa", "context": {"cluster": "kappa", "user": identity.file}}],
        "current-context": "kappa",
    }
    fresh = target.with_name(target.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(config, indent=1) + "\n")
    fresh.rename(target)
