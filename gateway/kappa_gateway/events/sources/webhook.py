"""The source `webhook`: requests to `/hooks/<namespace>/<trigger>` that prove themselves as the Trigger's preset says.

Called by the front, on every gateway; holds nothing. Order matters: nothing of a request is read before it is proven.
"""

from typing import Any, Final
from urllib.parse import parse_qsl

from kappa_api.sources.webhook import Webhook
from kappa_api.trigger import Trigger
from kappa_gateway.events.source import Inbound, Place, Reply
from kappa_gateway.events.sources import webhook_presets as presets
from kappa_gateway.events.sources import webhook_replies as replies
from kappa_gateway.events.sources import webhook_signatures as signatures

PLACE: Final = Place.NONE
SHAPE: Final = "http"


def receive(trigger: Trigger, inbound: Inbound, secret: Any) -> Reply:
    """See `kappa_gateway.events.source.Receiver`."""
    spec: Webhook = trigger.source
    data = secret(spec.secret) or {}
    secrets = signatures.secrets_of(data)
    if inbound.method in ("GET", "HEAD"):
        return _asked(spec, inbound, data.get(signatures.VERIFY_TOKEN, b"").strip())
    if inbound.method not in ("POST", "PUT", "PATCH"):
        return replies.failed(405, "method_not_allowed", "a webhook is posted")
    if not secrets:
        return replies.no_secret(spec.secret)
    if not signatures.proven(spec, inbound, secrets):
        return replies.refused()
    try:
        return presets.answer(presets.Proven(spec, f"/hooks/{trigger.key}", inbound))
    except replies.BodyError as error:
        return replies.failed(400, "bad_body", str(error))


def _asked(spec: Webhook, inbound: Inbound, verify_token: bytes) -> Reply:
    def right(token: str) -> bool:
        return bool(verify_token) and signatures.same(token.encode(errors="replace"), [verify_token])

    query = dict(parse_qsl(inbound.query, keep_blank_values=True))
    found = presets.challenged(spec, query, right)
    return found or replies.failed(405, "method_not_allowed", "a webhook is posted")
