"""Servers with TLS, certificates of their clients, and JWT credentials, as `nats.external` may name them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from kappa_nats import NatsServer
from kappa_nats_jwt import installation

from kappa_gateway.events.bus import Bus, UnavailableError
from kappa_gateway.events.settings import EventSettings, load

FILES = {"cert_file": "cert", "key_file": "key", "ca_file": "ca"}


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def start(extra: str, token: str = "") -> NatsServer:
            server = NatsServer(tmp_path / "server", token=token, extra=extra)
            await server.start(wait=False)
            stack.push_async_callback(server.kill)
            return server

        yield start


def told(server: NatsServer, scheme: str, more: Mapping[str, str]) -> EventSettings:
    return load({"KAPPA_NATS_URL": f"{scheme}://127.0.0.1:{server.port}", "KAPPA_NATS_TOKEN": server.token, **more})


async def take(settings: EventSettings, seconds: float) -> None:
    """Connects, and puts something into a stream. Raises UnavailableError."""
    bus = Bus(settings)
    task = asyncio.create_task(bus.keep())
    try:
        connected = asyncio.Event()
        bus.heard.append(connected.set)
        try:
            await asyncio.wait_for(connected.wait(), seconds)
        except TimeoutError as error:
            raise UnavailableError("no connection") from error
        await bus.api("STREAM.CREATE.KEPT", {"name": "KEPT", "subjects": ["kept"], "storage": "file"})
        assert (await bus.publish("kept", b"x")).seq == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bus.close()


async def test_tls_with_certificates_of_both_sides(serve: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    paths = {name: tmp_path / name for name in ("ca", "cert", "key")}
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(paths["ca"])
    issued.cert_chain_pems[0].write_to_path(paths["cert"])
    issued.private_key_pem.write_to_path(paths["key"])
    files = ", ".join(f"{key}: {json.dumps(str(paths[name]))}" for key, name in FILES.items())
    server = await serve(f"tls {{ {files}, verify: true }}", token="s3cret")
    client = authority.issue_cert("gateway")
    trust = {"KAPPA_NATS_CA_CERT": authority.cert_pem.bytes().decode()}
    mine = {
        "KAPPA_NATS_TLS_CERT": client.cert_chain_pems[0].bytes().decode(),
        "KAPPA_NATS_TLS_KEY": client.private_key_pem.bytes().decode(),
    }
    await take(told(server, "tls", trust | mine), 20)
    for missing in (trust, mine):  # the server refuses the one, the client the other
        with pytest.raises(UnavailableError):
            await take(told(server, "tls", missing), 1)


async def test_credentials_as_nsc_writes_them(serve: Any) -> None:
    config, credentials = installation()
    server = await serve(config)
    await take(told(server, "nats", {"KAPPA_NATS_CREDS": credentials}), 20)
    _, others = installation()
    with pytest.raises(UnavailableError):
        await take(told(server, "nats", {"KAPPA_NATS_CREDS": others}), 1)


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"KAPPA_NATS_CREDS": "x"}, "KAPPA_NATS_CREDS: creds is no credentials file"),
        ({"KAPPA_NATS_CA_CERT": "x"}, "KAPPA_NATS_CA_CERT: ca.crt is no certificate"),
        ({"KAPPA_NATS_TLS_CERT": "x"}, "KAPPA_NATS_TLS_CERT: tls.crt and tls.key go together"),
    ],
)
def test_what_is_wrong_is_named_when_the_gateway_starts(env: dict[str, str], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        load({"KAPPA_NATS_URL": "tls://a", **env})
