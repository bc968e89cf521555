"""A small S3 client for tests: signs requests (AWS Signature Version 4) and sends them to one server on loopback."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class S3Client:
    """Path-style addressing. Keys are given plain; they are encoded here."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    async def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body of the answer. `path` begins with `/<bucket>`."""
        encoded = quote(path, safe="/-_.~")
        asked = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted((query or {}).items()))
        headers = self._signed(method, encoded, asked, body)
        url = URL(f"{self.endpoint}{encoded}{'?' + asked if asked else ''}", encoded=True)
        asking = aiohttp.request(method, url, data=body or None, headers=headers)
        async with asking as answer:
            return answer.status, await answer.read()

    def _signed(self, method: str, path: str, query: str, body: bytes) -> dict[str, str]:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": urlsplit(self.endpoint).netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join((method, path, query, lines, names, digest))
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        to_sign = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret_key}".encode()
        for piece in (stamp[:8], self.region, "s3", "aws4_request"):
            key = hmac.digest(key, piece.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"{self.access_key}/{scope}"
        headers["authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return headers
