"""The HTTP client for the runtime's own paths in a pod.

Every call is sent once. aiohttp sends an idempotent request (PUT is one) silently a second time when the connection
breaks, and a second specialize would meet the first: `_once` keeps that error from it.
"""

import asyncio
import contextlib
import json
from typing import Any

import aiohttp

from kappa_api import names
from kappa_api.keyring import Keyring
from kappa_api.wire import RUNTIME_SERVING, ByteCode, Health, LoadError, Specialize, WireError
from kappa_operator.bytecode import MOST_OF_ONE
from kappa_operator.observed import Pod

Json = Any

CONNECT_SECONDS = 2.0
HEALTH_SECONDS = 2.0
#: From here on encoding would hold up the event loop; and from here on one at a time, for the memory it takes.
LARGE_BYTES, HUGE_BYTES = 1 << 18, 8 << 20
#: No answer is larger: byte code in base64, and a tenth more. A pod cannot fill the operator's memory.
MOST_ANSWER_BYTES = MOST_OF_ONE * 3 // 2


class PodError(Exception):
    """The pod could not be reached or did not answer as agreed."""


class PodUnreachableError(PodError):
    """The pod took no connection: nothing was sent, so its code has no part in it."""


class PodTimeoutError(PodError):
    """The pod took the request and did not answer in time."""


class LoadFailedError(Exception):
    """The code does not load: `error` says why."""

    def __init__(self, error: LoadError) -> None:
        self.error = error
        super().__init__(f"{error.type}: {error.message}")


class WrongRevisionError(Exception):
    """The pod holds something else already."""

    def __init__(self, health: Health) -> None:
        self.health = health
        super().__init__(f"the pod already holds {health.function or 'nothing'} revision {health.revision or '-'}")


class PodClient:
    """Talks to runtimes. `port` is where they listen."""

    def __init__(self, keys: Keyring, port: int = names.INSTANCE_PORT) -> None:
        self._keys, self._port = keys, port
        self._session: aiohttp.ClientSession | None = None
        self._large = asyncio.Semaphore(1)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def health(self, pod: Pod) -> Health:
        """What the runtime says it holds. Raises PodError."""
        status, data = await self._call("GET", pod, names.PATH_HEALTH, HEALTH_SECONDS)
        if status != 200:
            raise PodError(f"{pod.key}: health answered {status}")
        return _health(pod, data)

    async def lives(self, pod: Pod) -> bool:
        """Whether the pod says anything at all. A server that is not ours need only take the connection."""
        try:
            if pod.runtime:
                await self._call("GET", pod, names.PATH_HEALTH, HEALTH_SECONDS)
            else:
                async with asyncio.timeout(HEALTH_SECONDS):
                    _, writer = await asyncio.open_connection(pod.ip, self._port)
                writer.transport.abort()
        except (PodError, OSError):
            return False
        return True

    async def specialize(self, pod: Pod, message: Specialize, timeout: float) -> ByteCode | None:
        """Gives the pod its code and waits until it has loaded; holding it already is as good. Returns what it
        compiled, if the message wants that: without files when the runtime tells none; None when it was not asked, or
        held the code already.

        Raises LoadFailedError (the code's fault), WrongRevisionError or PodError (ours).
        """
        size = sum(map(len, message.files.values()))
        size += sum(map(len, message.byte_code.files.values())) if message.byte_code else 0
        if size <= LARGE_BYTES:
            status, data = await self._call("PUT", pod, names.PATH_REVISION, timeout, _encode(message))
        else:
            async with self._large if size > HUGE_BYTES else contextlib.nullcontext():
                body = await asyncio.to_thread(_encode, message)
                status, data = await self._call("PUT", pod, names.PATH_REVISION, timeout, body)
        if status == 200:
            if not message.want_byte_code:
                return None
            return _byte_code(data) if len(data) <= LARGE_BYTES else await asyncio.to_thread(_byte_code, data)
        if status == 409:
            health = _health(pod, data)
            same = health.function == f"{message.namespace}/{message.name}" and health.revision == message.revision
            if same and health.state == RUNTIME_SERVING:
                return None
            raise WrongRevisionError(health)
        if status == 422:
            try:
                error = LoadError.from_json(json.loads(data))
            except (ValueError, WireError) as wrong:
                raise PodError(f"{pod.key}: specialize answered 422 without a reason") from wrong
            raise LoadFailedError(error)
        raise PodError(f"{pod.key}: specialize answered {status}: {data[:200].decode(errors='replace')}")

    async def drain(self, pod: Pod, timeout: float) -> None:
        """Tells the pod to drain and waits until nothing is in flight there. Raises PodError."""
        status, data = await self._call("POST", pod, names.PATH_DRAIN, timeout, b"")
        if status >= 300:
            raise PodError(f"{pod.key}: drain answered {status}: {data[:200].decode(errors='replace')}")

    async def _call(self, method: str, pod: Pod, path: str, timeout: float, body: bytes = b"") -> tuple[int, bytes]:
        """One call; a pod that refuses the token, which runs nothing, gets the one of the other secret."""
        if not pod.ip:
            raise PodError(f"{pod.key} has no address yet")
        answer = 401, b""
        for token in self._keys.for_pod(pod.namespace, pod.name, pod.secret_id):
            answer = await self._send(method, pod, path, timeout, token, body)
            if answer[0] != 401:
                break
        return answer

    async def _send(
        self, method: str, pod: Pod, path: str, timeout: float, token: str, body: bytes
    ) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False)
            self._session = aiohttp.ClientSession(connector=connector, middlewares=(_once,))
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        headers = {"Authorization": f"Bearer {token}"}
        if body:
            headers["Content-Type"] = "application/json"
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, CONNECT_SECONDS))
        try:
            async with self._session.request(
                method,
                f"http://{host}:{self._port}{path}",
                data=body or None,
                headers=headers,
                timeout=limit,
                allow_redirects=False,
            ) as answer:
                return answer.status, await _read(pod, answer)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise PodUnreachableError(f"{pod.key}: {error or type(error).__name__}") from error
        except TimeoutError as error:
            raise PodTimeoutError(f"{pod.key}: no answer within {timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise PodError(f"{pod.key}: {error or type(error).__name__}") from error


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Turns the errors after which aiohttp would send again into one that it passes on."""
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise PodError(f"the connection to {request.url.host} broke: {error or type(error).__name__}") from error


async def _read(pod: Pod, answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for part in answer.content.iter_any():
        data += part
        if len(data) > MOST_ANSWER_BYTES:
            raise PodError(f"{pod.key}: the answer has more than {MOST_ANSWER_BYTES} bytes")
    return bytes(data)


def _byte_code(data: bytes) -> ByteCode:
    """What there is in the answer. It only saves time: nonsense is as good as none."""
    try:
        return ByteCode.from_json(json.loads(data)["byteCode"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ByteCode("", {})


def _encode(message: Specialize) -> bytes:
    return json.dumps(message.to_json()).encode()


def _health(pod: Pod, data: bytes) -> Health:
    try:
        return Health.from_json(json.loads(data))
    except (ValueError, WireError) as error:
        raise PodError(f"{pod.key}: did not answer as a runtime does") from error
