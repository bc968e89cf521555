"""Feeds that post to the gateways: asynchronous invocations, webhooks, an object store's notifications, CloudEvents."""

import hashlib
import hmac
import json
import secrets

from proof_feed import NAMESPACE, Ground, Json, PlainFeed

from kappa_api import names
from kappa_api.cloudevents import MEDIA_TYPE

FUNCTION = "worker"


class AsyncFeed(PlainFeed):
    """`POST /async/...`. Every second one with an Idempotency-Key, so that both ways are proven."""

    name = "async"
    parallel = 16

    async def send(self, ident: str) -> None:
        headers = {"content-type": "application/json"}
        if int(ident.rpartition("-")[2]) % 2:
            headers["idempotency-key"] = ident
        body = json.dumps({"id": ident}).encode()
        await self.ground.post(f"{names.ASYNC_PATH}{NAMESPACE}/{FUNCTION}", body, headers)


class WebhookFeed(PlainFeed):
    """Signed as the preset `hmac` has it; the delivery's id in a header."""

    name = "webhook"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._key = secrets.token_hex(16)

    def source(self) -> Json:
        head = {"header": "x-proof-signature", "prefix": "sha256=", "idHeader": "x-proof-id"}
        return {"webhook": {"preset": "hmac", "secretRef": {"name": "proof-webhook"}, **head}}

    def secrets(self) -> dict[str, dict[str, str]]:
        return {"proof-webhook": {"key": self._key}}

    async def send(self, ident: str) -> None:
        body = json.dumps({"delivery": ident}).encode()
        digest = hmac.new(self._key.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-proof-id": ident, "x-proof-signature": f"sha256={digest}"}
        await self.ground.post(f"{names.HOOKS_PATH}{NAMESPACE}/{self.name}", body, headers)


class S3Feed(PlainFeed):
    """A bucket notification in the shape of S3, with the token in the way of MinIO, repeated until it is taken."""

    name = "s3"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._token = secrets.token_hex(16)

    def source(self) -> Json:
        return {"s3": {"secretRef": {"name": "proof-s3"}, "events": ["s3:ObjectCreated:*"]}}

    def secrets(self) -> dict[str, dict[str, str]]:
        return {"proof-s3": {"token": self._token}}

    async def send(self, ident: str) -> None:
        stored = {"key": f"in/{ident}.json", "size": 17, "eTag": "d41d8cd98f00b204e9800998ecf8427e"}
        stored["sequencer"] = hashlib.sha256(ident.encode()).hexdigest()[:16].upper()
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "",
            "eventTime": "2026-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "userIdentity": {"principalId": "proof"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"},
            "responseElements": {"x-amz-request-id": ident},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "proof",
                "bucket": {"name": "proof", "ownerIdentity": {"principalId": "proof"}, "arn": "arn:aws:s3:::proof"},
                "object": stored,
            },
        }
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._token}"}
        body = json.dumps({"Records": [record]}).encode()
        await self.ground.post(f"{names.HOOKS_PATH}{NAMESPACE}/{self.name}", body, headers)


class EventFeed(PlainFeed):
    """CloudEvents of one's own, structured."""

    name = "event"

    def source(self) -> Json:
        return {"event": {"types": ["dev.kappa.proof"], "auth": {"type": "none"}}}

    async def send(self, ident: str) -> None:
        event = {
            "specversion": "1.0",
            "id": ident,
            "source": "/proof",
            "type": "dev.kappa.proof",
            "data": {"id": ident},
        }
        body = json.dumps(event).encode()
        await self.ground.post(f"{names.EVENTS_PATH}{NAMESPACE}", body, {"content-type": MEDIA_TYPE})
