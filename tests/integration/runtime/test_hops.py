"""What functions learn of how far they are from the first cause, and what they are given to send on."""

import pytest

HANDLER = """
def handler(event, context):
    return {"hops": context.hops, "onward": context.onward_headers}
"""
APP = """
import json

async def app(scope, receive, send):
    if scope["type"] == "http":
        context = scope["kappa.context"]
        seen = [name.decode() for name, _ in scope["headers"] if name.startswith(b"kappa-")]
        body = json.dumps({"hops": context.hops, "onward": context.onward_headers, "seen": seen}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""
GIVEN = [({}, 0, "1"), ({"kappa-hops": "1"}, 0, "1"), ({"kappa-hops": "7"}, 6, "7"), ({"kappa-hops": "x"}, 0, "1")]


@pytest.mark.parametrize(("headers", "hops", "onward"), GIVEN)
def test_handlers(pod, headers, hops, onward):
    pod.load(HANDLER)
    found = pod.request("POST", "/", b"{}", {"kappa-request-id": "r-1", **headers}).json()
    assert found == {"hops": hops, "onward": {"kappa-hops": onward, "X-Request-Id": "r-1"}}


@pytest.mark.parametrize(("headers", "hops", "onward"), GIVEN)
def test_applications(pod, headers, hops, onward):
    pod.load(APP, "main.app", signature="asgi")
    found = pod.request("POST", "/", b"{}", {"kappa-request-id": "r-1", **headers}).json()
    assert found == {"hops": hops, "onward": {"kappa-hops": onward, "X-Request-Id": "r-1"}, "seen": []}
