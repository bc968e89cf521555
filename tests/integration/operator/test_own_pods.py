"""Functions that need pods of their own: secrets, images; and code from an archive."""

import asyncio
import hashlib
import io
import ssl
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from kappa_operator_world import World, condition, inline

ENV = "import os\n\ndef handler(event, context):\n    return os.environ['PASSWORD'] + os.environ['PLAIN']\n"


async def test_a_secret_reaches_the_code(world: World) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "s3cret"}}
    await world.call("POST", "/api/v1/namespaces/default/secrets", secret)
    env = [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
        {"name": "PLAIN", "value": "!"},
    ]
    await world.apply("fn", inline(ENV, env=env))
    why = condition(await world.ready("fn"), "Pooled")
    assert (why["status"], why["reason"]) == ("False", "OwnPods")
    assert why["message"].startswith("env uses valueFrom, so every instance gets a pod of its own")
    (pod,) = await world.serving("fn")
    assert pod["metadata"]["annotations"]["kappa.dev/own-pod-reason"] == "env uses valueFrom"
    assert await world.invoke(pod) == (200, b'"s3cret!"')


async def test_an_image_serves_as_soon_as_it_listens(world: World) -> None:
    await world.apply("web", {"code": {"image": "image-server"}, "scaling": {"minReplicas": 1}})
    first = (await world.ready("web"))["activeRevision"]
    (pod,) = await world.serving("web")
    assert await world.invoke(pod) == (200, b"from an image")

    spec = {"code": {"image": "image-server"}, "scaling": {"minReplicas": 1}, "env": [{"name": "FAIL", "value": "1"}]}
    await world.apply("web", spec)
    status = await world.status("web", lambda s: "cannot open the vault" in condition(s, "Ready").get("message", ""))
    assert condition(status, "Ready")["status"] == "False"
    assert status["activeRevision"] == first
    assert await world.invoke((await world.serving("web"))[0]) == (200, b"from an image")


async def test_an_image_drains_when_every_gateway_has_let_it_go(gateway: World) -> None:
    world = gateway
    await world.apply("web", {"code": {"image": "image-server"}, "scaling": {"idleSeconds": 1}})
    await world.ready("web")
    (pod,) = await world.serving("web")
    key = f"default/{pod['metadata']['name']}"
    await world.gateway_says({}, {key: 1})
    (pod,) = await world.until(lambda: world.pods("kappa.dev/state=draining"), lambda pods: len(pods) == 1)
    await asyncio.sleep(1)
    assert len(await world.pods("kappa.dev/state=draining")) == 1
    await world.gateway_says({}, {key: 0})
    await world.until(lambda: world.pods("kappa.dev/function=web"), lambda pods: not pods, 5)


async def test_an_image_that_does_not_exist(world: World) -> None:
    await world.apply("web", {"code": {"image": "no/such:image"}})
    status = await world.status("web", lambda s: condition(s, "Ready").get("status") == "False")
    assert condition(status, "Ready")["reason"] in ("ErrImagePull", "ImagePullBackOff")


@pytest.fixture
async def https(bare: World, tmp_path: Path) -> AsyncIterator[tuple[World, str, bytes]]:
    """The world with an operator that trusts a web server with an archive: (world, URL, archive)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app/__init__.py", "def run(event, context):\n    return 'zipped'\n")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    app = web.Application()

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=packed.getvalue())

    app.router.add_get("/code.zip", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    await bare.operator(KAPPA_ARCHIVE_CA_FILE=str(ca_file), KAPPA_ARCHIVE_ALLOW="127.0.0.0/8")
    yield bare, f"https://127.0.0.1:{port}/code.zip", packed.getvalue()
    await runner.cleanup()


async def test_code_from_an_archive(https: tuple[World, str, bytes]) -> None:
    world, url, data = https
    good = hashlib.sha256(data).hexdigest()
    spec = {"runtime": "python", "handler": "app.run"}
    await world.apply("fn", {**spec, "code": {"archive": {"url": url, "sha256": "0" * 64}}})
    status = await world.status("fn", lambda s: condition(s, "Ready").get("reason") == "FetchFailed")
    assert f"has sha256 {good}, not {'0' * 64}" in condition(status, "Ready")["message"]

    await world.apply("fn", {**spec, "code": {"archive": {"url": url, "sha256": good}}})
    await world.ready("fn")
    assert await world.invoke((await world.serving("fn"))[0]) == (200, b'"zipped"')
