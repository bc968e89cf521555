"""Whether a webhook comes from who knows the secret: one function for each way of proving it. Pure.

Each looks at every secret and compares in constant time, so that neither how much of a signature was right nor which
secret it was made with can be told from how long the answer takes. Sources: GitHub "Validating webhook deliveries",
Stripe "Verify webhook signatures", Slack "Verifying requests from Slack", Meta "Getting started with Webhooks", the
Standard Webhooks specification (standardwebhooks.com), RFC 2104 (HMAC).
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from kappa_api.sources.webhook import Webhook
from kappa_gateway.events.source import Inbound

#: In a Secret for the preset `meta`: what its GET challenge must bring. All other keys hold secrets.
VERIFY_TOKEN: Final = "verify-token"
_DIGITS: Final = 15  # of a time in milliseconds there are 13


def proven(spec: Webhook, inbound: Inbound, secrets: Sequence[bytes]) -> bool:
    """Whether the request was signed with one of `secrets`, and lately where its way of signing says when."""
    return _WAYS[spec.preset](spec, inbound, secrets)


def secrets_of(data: Mapping[str, bytes]) -> list[bytes]:
    """The secrets that a Secret holds. Ends of line are no part of them: `kubectl create secret --from-file` keeps
    those of the file."""
    found = (value.strip(b"\r\n") for name, value in sorted(data.items()) if name != VERIFY_TOKEN)
    return [value for value in found if value]


def same(given: bytes, allowed: Iterable[bytes]) -> bool:
    """Whether `given` is one of `allowed`."""
    right = False
    for one in allowed:
        right |= hmac.compare_digest(given, one)
    return right


def opens(header: str, secrets: Sequence[bytes]) -> bool:
    """Whether a header carries one of the tokens: as `Bearer x`, as a bare `x`, or as `Bearer Bearer x`, which stores
    of the MinIO family send when their admin has written `Bearer x` into the configuration."""
    allowed = [token for secret in secrets if (token := _bare(secret.decode("latin-1")))]
    return same(_bare(header), allowed)


def _bare(text: str) -> bytes:
    words = text.split()
    while len(words) > 1 and words[0].lower() == "bearer":
        words = words[1:]
    return _latin(" ".join(words))


def _github(spec: Webhook, inbound: Inbound, secrets: Sequence[bytes]) -> bool:
    return _hex_of_body("sha256=", inbound.headers.get("x-hub-signature-256", ""), inbound.body, secrets)


def _hex_of_body(prefix: str, given: str, body: bytes, secrets: Sequence[bytes]) -> bool:
    if not given.startswith(prefix):
        return False
    expected = [hmac.digest(secret, body, "sha256").hex().encode() for secret in secrets]
    return same(_latin(given[len(prefix) :].lower()), expected)


def _stripe(spec: Webhook, inbound: Inbound, secrets: Sequence[bytes]) -> bool:
    pairs = [part.strip().partition("=")[::2] for part in inbound.headers.get("stripe-signature", "").split(",")]
    moment = next((value for name, value in pairs if name == "t"), "")
    if not _lately(moment, inbound.now, spec.tolerance_seconds):
        return False
    signed = moment.encode() + b"." + inbound.body
    expected = [hmac.digest(secret, signed, "sha256").hex().encode() for secret in secrets]
    return any(same(_latin(value), expected) for name, value in pairs if name == "v1")


def _slack(spec: Webhook, inbound: Inbound, secrets: Sequence[bytes]) -> bool:
    moment = inbound.headers.get("x-slack-request-timestamp", "")
    if not _lately(moment, inbound.now, spec.tolerance_seconds):
        return False
    signed = b"v0:" + moment.encode() + b":" + inbound.body
    return _hex_of_body("v0=", inbound.headers.get("x-slack-signature", ""), signed, secrets)


def _standard(spec: Webhook, inbound: Inbound, secrets: Sequence[bytes]) -> bool:
    name, moment = inbound.headers.get("webhook-id", ""), inbound.headers.get("webhook-timestamp", "")
    if not name or not _lately(moment, inbound.now, spec.tolerance_seconds):
        return False
    signed = _latin(name) + b"." + moment.encode() + b"." + inbound.body
    keys = [key for secret in secrets if (key := _standard_key(secret))]
    expected = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    given = (word.partition(",")[::2] for word in inbound.headers.get("webhook-signature", "").split())
    return any(same(_latin(value), expected) for version, value in given if version == "v1")


def _standard_key(secret: bytes) -> bytes:
    """`whsec_<base64>`; what is not base64 is no key of this kind."""
    try:
        return base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except binascii.Error:
        return b""


def _hmac(spec: Webhook, inbound: Inbound, secrets: Sequence[bytes]) -> bool:
    given = inbound.headers.get(spec.header, "")
    if not given.startswith(spec.prefix):
        return False
    signed = inbound.body
    if spec.timestamp_header:
        moment = inbound.headers.get(spec.timestamp_header, "")
        if not _lately(moment, inbound.now, spec.tolerance_seconds):
            return False
        signed = moment.encode() + spec.separator.encode() + inbound.body
    return same(
        _decoded(given[len(spec.prefix) :].strip(), spec.encoding),
        [hmac.digest(secret, signed, spec.algorithm) for secret in secrets],
    )


def _decoded(text: str, encoding: str) -> bytes:
    """The signature's bytes; what is not in its encoding becomes empty, which is no digest."""
    try:
        if encoding == "hex":
            return bytes.fromhex(text) if text.isalnum() else b""
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _token(spec: Webhook, inbound: Inbound, secrets: Sequence[bytes]) -> bool:
    return opens(inbound.headers.get(spec.header, ""), secrets)


def _lately(moment: str, now: float, tolerance: int) -> bool:
    """Whether `moment`, epoch seconds or milliseconds in digits, is at most `tolerance` seconds before or after now."""
    if not (moment.isascii() and moment.isdigit() and len(moment) <= _DIGITS):
        return False
    seconds = int(moment) / (1000 if len(moment) > 11 else 1)
    return abs(now - seconds) <= tolerance


def _latin(text: str) -> bytes:
    return text.encode("latin-1", "replace")


_WAYS: Final[Mapping[str, Callable[[Webhook, Inbound, Sequence[bytes]], bool]]] = {
    "github": _github,
    "meta": _github,
    "stripe": _stripe,
    "slack": _slack,
    "standard": _standard,
    "hmac": _hmac,
    "token": _token,
}
