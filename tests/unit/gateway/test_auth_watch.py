"""The watch of Secrets with API keys: which are asked for, refusals that must not stop the gateway, and settings."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from kappa_auth_world import hashed, secret

from kappa_gateway import settings
from kappa_gateway import watch as module
from kappa_gateway.auth.api_keys import KeyStore
from kappa_gateway.auth.settings import ALL, AuthSettings
from kappa_gateway.catalog import Catalog
from kappa_gateway.kube import ApiError
from kappa_gateway.settings import SettingsError
from kappa_gateway.watch import Watcher, api_keys

Json = Any
DEFAULT = "/api/v1/namespaces/default/secrets"


class Api:
    """Lists of Secrets from `lists`, one step after the other; everything else is empty. Watches say nothing."""

    def __init__(self, *lists: Any) -> None:
        self.lists = list(lists)
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.watching = asyncio.Event()

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[tuple[list[Any], str]]:
        if path.endswith("secrets"):
            self.asked.append((path, query))
            step = self.lists.pop(0)
            if isinstance(step, Exception):
                raise step
            yield step, "1"
        else:
            yield [], "1"

    async def watch(self, path: str, query: Mapping[str, str], seconds: int) -> AsyncIterator[tuple[str, Any]]:
        if path.endswith("secrets"):
            self.watching.set()
        await asyncio.Event().wait()
        yield "", {}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", at_once)


def make(api: Api, store: KeyStore, *namespaces: str) -> Watcher:
    catalog = Catalog(lambda: 0.0, routes_stale=lambda: None, instance_gone=lambda key: None)
    return Watcher(api, catalog, *api_keys(namespaces, store))


async def run(watcher: Watcher, until: asyncio.Event) -> None:
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(5):
        await until.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def opens(store: KeyStore, key: str) -> bool:
    return store.find(["default/robots"], key.encode()) is not None


async def test_only_secrets_with_keys_are_asked_for() -> None:
    api, store = Api([secret("robots", r2d2=hashed("beep"))]), KeyStore()
    watcher = make(api, store, "default")
    await run(watcher, api.watching)
    assert api.asked == [(DEFAULT, {"fieldSelector": "type=kappa.dev/api-keys"})]
    assert opens(store, "beep")
    assert watcher.synced
    assert store.trouble("default") == ""
    assert "gateway.auth.apiKeys.namespaces" in store.trouble("other")


async def test_every_namespace_by_one_watch() -> None:
    api, store = Api([secret("robots", r2d2=hashed("beep"))]), KeyStore()
    await run(make(api, store, ALL), api.watching)
    assert api.asked[0][0] == "/api/v1/secrets"
    assert store.trouble("other") == ""


async def test_a_refusal_does_not_keep_the_gateway_from_serving(caplog: pytest.LogCaptureFixture) -> None:
    """RBAC that does not allow it closes functions with API keys, and nothing else; when it does, they open."""
    refusals = [ApiError(403, "secrets is forbidden")] * 50
    api, store = Api(*refusals, [secret("robots", r2d2=hashed("beep"))]), KeyStore()
    watcher = make(api, store, "default")
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(5):
        await watcher.wait_synced()
        assert not opens(store, "beep")
        assert "secrets is forbidden" in store.trouble("default")
        await api.watching.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert opens(store, "beep")
    assert store.trouble("default") == ""
    assert len([r for r in caplog.records if "forbidden" in r.getMessage()]) == 1, "told once"


async def test_an_outage_keeps_what_is_known() -> None:
    store = KeyStore()
    store.put(secret("robots", r2d2=hashed("beep")))
    store.put(secret("gone", r2d2=hashed("beep")))
    store.put(secret("robots", namespace="other", r2d2=hashed("beep")))
    api = Api(OSError(), ApiError(500, "x"), [secret("robots", r2d2=hashed("beep"))])
    await run(make(api, store, "default"), api.watching)
    assert opens(store, "beep")
    assert sorted(store.known(ALL)) == ["default/robots", "other/robots"], "only its own namespace was listed"


# --- settings ---------------------------------------------------------------------------------------------------------
def load(**env: str) -> AuthSettings:
    return settings.load({"KAPPA_PLATFORM_SECRET": "x" * 32, **env}).auth


def test_settings() -> None:
    assert load() == AuthSettings()
    assert load(KAPPA_API_KEY_NAMESPACES="").key_namespaces == ()
    assert load(KAPPA_API_KEY_NAMESPACES=" a, b,,a").key_namespaces == ("a", "b")
    assert load(KAPPA_API_KEY_NAMESPACES="a,*").key_namespaces == (ALL,)
    assert load(KAPPA_JWKS_ALLOW_HTTP="true", KAPPA_JWKS_RETRY="1") == AuthSettings(allow_http=True, jwks_retry=1.0)
    assert load(KAPPA_REVIEW_ALLOWED="0").allowed_seconds == 0


@pytest.mark.parametrize("value", ["x", "-1", "nan", "1e9"])
def test_settings_that_are_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="KAPPA_JWKS_RETRY"):
        load(KAPPA_JWKS_RETRY=value)
