"""How emitted events get to the gateway: POST with the pod's token, over connections that stay open.

An event may be sent again at any time: the gateway's stream drops a second one with the same id. So whatever looks as
if it would pass (no connection, 503, 429) is tried again until the time given is over.

Standard library only, and `http.client` only once something is emitted. Blocking: async code calls it on a thread.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kappa_api.cloudevents import MEDIA_TYPE
from kappa_api.names import EVENTS_PATH, HEADER_POD

if TYPE_CHECKING:
    from http.client import HTTPConnection

#: Takes a body, the headers that go on with it and how many seconds there are. Raises EmitError.
Post = Callable[[bytes, Mapping[str, str], float], None]

#: Connections that are kept open; more may be in use at a time.
KEPT: Final = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
#: Nothing was accepted, and that may be otherwise in a moment.
PASSING: Final = (429, 502, 503, 504)
MOST_ANSWER_BYTES: Final = 64 << 10


class EmitError(Exception):
    """The gateway has not accepted the event. `status` is 0 when it could not be reached, `code` as in its error."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        self.status, self.code = status, code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as an argument. `monotonic` and `sleep` in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str
    body: bytes


def poster(url: str, token: str, namespace: str, pod: str, clock: Clock = Clock()) -> Post:
    """A function that posts events of this pod to the gateway at `url`.

    The token is in a closure, not in an attribute: no code comes across it by accident.
    """
    address = urlsplit(url)
    target = address.path.rstrip("/") + EVENTS_PATH + namespace
    lock = threading.Lock()
    idle: list[HTTPConnection] = []

    def connection(seconds: float) -> "tuple[HTTPConnection, bool]":
        with lock:
            found = idle.pop() if idle else None
        if found is not None:
            if found.sock is not None:
                found.sock.settimeout(seconds)
            return found, True
        return _connect(address.scheme, address.hostname or "", address.port, seconds), False

    def once(body: bytes, onward: Mapping[str, str], seconds: float) -> _Answer:
        while True:
            client, reused = connection(seconds)
            headers = {"Content-Type": MEDIA_TYPE, "Authorization": f"Bearer {token}", HEADER_POD: f"{namespace}/{pod}"}
            headers |= onward
            try:
                client.request("POST", target, body, headers)
                reply = client.getresponse()
                content = reply.read(MOST_ANSWER_BYTES)
                keep = not reply.will_close and reply.isclosed()
                answer = _Answer(reply.status, reply.getheader("Retry-After", ""), content)
            except BaseException as error:
                client.close()
                # The gateway has closed it while it was idle. On a fresh one the same error means something.
                if reused and isinstance(error, ConnectionError):
                    continue
                raise
            if keep and len(idle) < KEPT:
                with lock:
                    idle.append(client)
            else:
                client.close()
            return answer

    def post(body: bytes, onward: Mapping[str, str], seconds: float) -> None:
        from http.client import HTTPException

        until = clock.monotonic() + seconds
        pause = FIRST_PAUSE
        while True:
            left = until - clock.monotonic()
            if left <= 0:
                raise EmitError("there is no time left to emit an event: the invocation's deadline is near")
            try:
                answer = once(body, onward, left)
            except (OSError, HTTPException) as error:
                problem = EmitError(f"the gateway at {url} cannot be reached: {error or type(error).__name__}")
                wait = pause
            else:
                if 200 <= answer.status < 300:
                    return
                problem = _refused(answer)
                if answer.status not in PASSING:
                    raise problem
                wait = max(pause, float(answer.retry_after) if answer.retry_after.isdigit() else 0.0)
            if clock.monotonic() + wait >= until:
                raise problem
            clock.sleep(wait)
            pause = min(LONGEST_PAUSE, pause * 2)

    return post


def _connect(scheme: str, host: str, port: int | None, seconds: float) -> "HTTPConnection":
    from http.client import HTTPConnection, HTTPSConnection

    return (HTTPSConnection if scheme == "https" else HTTPConnection)(host, port, timeout=seconds)


def _refused(answer: _Answer) -> EmitError:
    """What the gateway says, from its error JSON if it is that."""
    error: Any = {}
    try:
        error = json.loads(answer.body)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "", answer.body[:200].decode(errors="replace")
    return EmitError(f"the gateway answered {answer.status}: {message}", answer.status, code)
