"""The kinds of calls in the mix: what is sent, how much of the time is the function's own, and what answer is right."""

import json
import zlib
from dataclasses import dataclass
from random import Random

from chaos_answer import Answer, Finding, judge
from chaos_client import Ask, Client
from chaos_functions import ASYNC_SECONDS, CYCLE_SECONDS, STREAM_PARTS, STREAM_PAUSE
from chaos_websocket import Session, converse

SMALL, LARGE = 300, 150 * 1024
WS_MESSAGES, WS_PAUSE = 5, 0.1
LONG_SECONDS = (2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """`weight`: share of all calls. `repeatable`: sending it again does no harm (an idempotent request whose answer is
    held whole), so that not even a dying instance excuses a failure.
    """

    name: str
    function: str
    weight: float
    repeatable: bool


KINDS = (
    Kind("short", "short", 0.55, True),
    Kind("async", "async", 0.18, True),
    Kind("post", "post", 0.18, False),
    Kind("large", "post", 0.015, False),
    Kind("stream", "asgi", 0.05, False),
    Kind("websocket", "asgi", 0.012, False),
    Kind("long", "long", 0.013, True),
)
#: Called by the cycles from N to 0 and back, besides the steady load.
CYCLE = Kind("cycle", "cycle", 0.0, True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`nominal`: seconds that a right answer takes of itself; what is beyond is Kappa's and the machine's."""

    finding: Finding
    answer: Answer
    nominal: float


async def perform(client: Client, kind: Kind, ident: str, base: str, rng: Random) -> Outcome:
    """Makes one call. `base`: the path up to the function's name."""
    path = f"{base}{kind.function}"
    match kind.name:
        case "websocket":
            finding, answer = await converse(client, Session(f"{path}/ws", ident, WS_MESSAGES, WS_PAUSE))
            return Outcome(finding, answer, WS_MESSAGES * WS_PAUSE)
        case "stream":
            answer = await client.call(Ask("GET", f"{path}/stream?id={ident}"))
            return Outcome(judge(answer, _stream_problem(answer, ident)), answer, STREAM_PARTS * STREAM_PAUSE)
        case "post" | "large":
            body = rng.randbytes(LARGE if kind.name == "large" else SMALL)
            headers = (("content-type", "application/octet-stream"),)
            answer = await client.call(Ask("POST", f"{path}?id={ident}", body, headers))
            return Outcome(judge(answer, _json_problem(answer, ident, body)), answer, 0.0)
        case "long":
            seconds = rng.uniform(*LONG_SECONDS)
            answer = await client.call(Ask("GET", f"{path}?id={ident}&seconds={seconds:.3f}"))
            return Outcome(judge(answer, _json_problem(answer, ident)), answer, seconds)
        case _:
            answer = await client.call(Ask("GET", f"{path}?id={ident}"))
            nominal = {"short": 0.0, "cycle": CYCLE_SECONDS}.get(kind.name, ASYNC_SECONDS)
            return Outcome(judge(answer, _json_problem(answer, ident)), answer, nominal)


def _json_problem(answer: Answer, ident: str, body: bytes | None = None) -> str:
    """What is wrong with an answer that should tell its request's id, and of a body its length and checksum."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return f"not JSON: {answer.body[:80]!r}"
    if not isinstance(found, dict) or found.get("id") != ident:
        return f"answers another request: {answer.body[:80]!r}, not {ident}"
    if body is not None and (found.get("length"), found.get("crc")) != (len(body), zlib.crc32(body)):
        return f"the function got {found.get('length')} other bytes than the {len(body)} that were sent"
    return ""


def _stream_problem(answer: Answer, ident: str) -> str:
    wanted = "".join(f"data: {ident} {number}\n\n" for number in range(STREAM_PARTS)) + "data: end\n\n"
    return "" if answer.body == wanted.encode() else f"the stream is not what was sent: {answer.body[-80:]!r}"
