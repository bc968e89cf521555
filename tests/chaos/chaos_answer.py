"""What a call brought, as the caller saw it, and whose fault it is when it failed. Pure.

The contract: a call is answered, or its failure says whose it is. Four classes:

* `ok`: the whole right answer.
* `attributed`: a complete error answer that says who failed (`kappa-error-source`, a code, the request id), or a
  WebSocket's close frame that does.
* `cut`: the answer had begun, or the gateway itself was killed, so no error answer was possible. It counts as
  attributed only when something else explains it: a gateway's log names the request, or the gateway was killed.
* `lost`: anything else. A wrong body with status 200 is the worst of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Any
Verdict = Literal["ok", "attributed", "cut", "lost"]

#: Close codes (RFC 6455 section 7.4.1, IANA) that say that the peer goes away or failed: 1001 going away, 1011 internal
#: error, 1012 service restart, 1014 bad gateway.
TOLD = frozenset({1001, 1011, 1012, 1014})


@dataclass(slots=True)
class Answer:
    """`status` 0: no head came. `complete`: framing says that the body is whole. `trouble`: how the connection ended.

    `endpoint` is the gateway that was asked last, `retries` how often the client asked again, as any HTTP client may.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    trouble: str = ""
    endpoint: str = ""
    retries: int = 0
    begun: bool = False

    @property
    def request_id(self) -> str:
        return self.headers.get("kappa-request-id", "")


@dataclass(frozen=True, slots=True)
class Finding:
    """The class of an answer and, for people, why."""

    verdict: Verdict
    why: str = ""


OK = Finding("ok")


def judge(answer: Answer, problem: str) -> Finding:
    """Classifies. `problem`: what is wrong with the content of a complete 200, empty when nothing is."""
    if not answer.status and not answer.begun:
        return Finding("lost", f"no answer: {answer.trouble or 'nothing came'}")
    if not answer.complete:
        return Finding("cut", f"{answer.status} cut after {len(answer.body)} bytes: {answer.trouble}")
    if 200 <= answer.status < 300:
        return Finding("lost", f"wrong answer: {problem}") if problem else OK
    return _error(answer)


def _error(answer: Answer) -> Finding:
    source = answer.headers.get("kappa-error-source", "")
    if source == "function":
        kind = answer.headers.get("kappa-error", "")
        return Finding("attributed", f"{answer.status} of the function {kind}".rstrip())
    if source != "gateway":
        return Finding("lost", f"{answer.status} that does not say whose it is")
    try:
        error = json.loads(answer.body)["error"]
        code, words, request_id = str(error["code"]), str(error["message"]), str(error["requestId"])
    except (ValueError, KeyError, TypeError):
        return Finding("lost", f"{answer.status} of the gateway without a code")
    if not code or not request_id:
        return Finding("lost", f"{answer.status} of the gateway without code or request id")
    return Finding("attributed", f"{answer.status} {code}: {words}")


def judge_close(code: int, endpoint: str) -> Finding:
    """A WebSocket that ended before its messages were all echoed. `code` 0: without a close frame."""
    if code in TOLD:
        return Finding("attributed", f"closed with {code}")
    return Finding("cut", f"the WebSocket ended {f'with {code}' if code else 'without a close frame'} at {endpoint}")
