"""A runtime takes its own pod's token and nothing else: not another pod's, not the platform secret, not none at all."""

import pytest

from kappa_api.names import PATH_HEALTH
from kappa_api.tokens import internal_token, pod_token
from kappa_runtime.platform import METHODS

SECRET = b"platform-secret"
OWN = pod_token(SECRET, "default", "pod-1")

#: Paths that anybody may ask, each with the reason.
OPEN = {PATH_HEALTH: "the kubelet's probe has no token; it tells the state, the function's name and how much runs"}

WRONG = {
    "nothing": None,
    "empty": "",
    "no token": "Bearer",
    "blank token": "Bearer  ",
    "no scheme": OWN,
    "another scheme": f"Basic {OWN}",
    "another pod's": f"Bearer {pod_token(SECRET, 'default', 'pod-2')}",
    "the same pod's name elsewhere": f"Bearer {pod_token(SECRET, 'other', 'pod-1')}",
    "another platform's": f"Bearer {pod_token(b'other', 'default', 'pod-1')}",
    "the internal one": f"Bearer {internal_token(SECRET)}",
    "the platform secret": f"Bearer {SECRET.decode()}",
    "upper case": f"Bearer {OWN.upper()}",
    "cut short": f"Bearer {OWN[:-1]}",
    "with more": f"Bearer {OWN}0",
    "twice": f"Bearer {OWN} {OWN}",
    "bytes that are no text": "Bearer \xff\xfe",
}


@pytest.fixture(scope="module")
def guarded(module_pods):
    return module_pods(token=OWN)


def paths():
    return [(method, path) for path, methods in METHODS.items() for method in methods if path not in OPEN]


def test_the_list_of_open_paths_is_not_longer_than_it_says():
    assert set(OPEN) <= set(METHODS)
    assert len(paths()) >= 2


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize(("method", "path"), paths())
def test_wrong_tokens(guarded, method, path, header):
    """Every path of the table: one that is added without a check fails here."""
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    reply = guarded.request(method, path, b"{}", headers)
    assert reply.status == 401
    assert guarded.health()["state"] == "empty"


@pytest.mark.parametrize("header", ["Bearer ", "Bearer", f"Bearer {OWN}", "Bearer None"])
def test_a_pod_without_a_token_obeys_nobody(pods, header):
    pod = pods(token="")
    assert pod.request("POST", "/_kappa/drain", b"", {"authorization": header}).status == 401
    assert pod.health()["state"] == "empty"


def test_its_own_token_in_the_forms_that_headers_have(pods):
    pod = pods(token=OWN)
    assert pod.request("PUT", "/_kappa/revision", b"{}", {"authorization": f"bearer {OWN}"}).status == 400
    assert pod.request("POST", "/_kappa/drain", b"", {"Authorization": f"Bearer  {OWN} "}).status == 200


def test_two_authorization_headers_do_not_help(guarded):
    """The first one counts, as `Request.header` says; a proxy that adds a header cannot add a right."""
    lines = f"authorization: Bearer wrong\r\nauthorization: Bearer {OWN}\r\n"
    answer = guarded.exchange(f"POST /_kappa/drain HTTP/1.1\r\nhost: x\r\n{lines}connection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401 ")
