"""`source.webhook`: any system posts to `/hooks/<namespace>/<trigger>` and proves itself as the preset says."""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.limits import NO_POST_LIMITS, PostLimits, read_post_limits
from kappa_api.secretref import read_secret_ref

#: `standard`: the Standard Webhooks specification. `hmac`, `token`: as the fields say.
PRESETS: Final = ("github", "stripe", "slack", "meta", "standard", "hmac", "token")
ALGORITHMS: Final = ("sha256", "sha512", "sha1")
ENCODINGS: Final = ("hex", "base64")
HEADER: Final = r"[A-Za-z0-9][-A-Za-z0-9]{0,63}"
#: Which fields mean something with which presets; as their defaults say they may stand everywhere (CRDs have defaults).
_FIELDS: Final = {
    "header": ("header", ("hmac", "token")),
    "algorithm": ("algorithm", ("hmac",)),
    "encoding": ("encoding", ("hmac",)),
    "prefix": ("prefix", ("hmac",)),
    "timestampHeader": ("timestamp_header", ("hmac",)),
    "separator": ("separator", ("hmac",)),
    "toleranceSeconds": ("tolerance_seconds", ("hmac", "stripe", "slack", "standard")),
    "idHeader": ("id_header", ("hmac", "token")),
    "typeHeader": ("type_header", ("hmac", "token")),
}


@dataclass(frozen=True, slots=True)
class Webhook:
    """`secret`: each of its values is tried, so that one can be exchanged for another without a gap.

    `header` carries the signature (hmac: `prefix` and then the digest of the body, in `encoding`) or the token.
    `timestamp_header`: its content and `separator` stand before the body in what is signed, and it must be at most
    `tolerance_seconds` away from now. `id_header`, `type_header`: where the event's id and type come from; empty: the
    id is a digest of the body, the type `dev.kappa.webhook.received`. Header names are lower case.
    `limits`: of all who post.
    """

    preset: str
    secret: str
    header: str = ""
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    timestamp_header: str = ""
    separator: str = "."
    tolerance_seconds: int = 300
    id_header: str = ""
    type_header: str = ""
    limits: PostLimits = NO_POST_LIMITS


def read(reader: Reader) -> Webhook:
    preset = reader.choice("preset", "", PRESETS)
    found = Webhook(
        preset=preset,
        secret=read_secret_ref(reader, required=True),
        header=_header(reader, "header") or ("authorization" if preset == "token" else ""),
        algorithm=reader.choice("algorithm", "sha256", ALGORITHMS),
        encoding=reader.choice("encoding", "hex", ENCODINGS),
        prefix=reader.string("prefix", pattern=r"[!-~]{0,32}", hint="at most 32 visible ASCII characters"),
        timestamp_header=_header(reader, "timestampHeader"),
        separator=reader.string("separator", ".", pattern=r"[ -~]{0,8}", hint="at most 8 ASCII characters"),
        tolerance_seconds=reader.integer("toleranceSeconds", 300, 1, 86_400),
        id_header=_header(reader, "idHeader"),
        type_header=_header(reader, "typeHeader"),
        limits=read_post_limits(reader),
    )
    plain = Webhook(preset=preset, secret="", header="authorization" if preset == "token" else "")
    for field, (attribute, presets) in _FIELDS.items():
        if preset and preset not in presets and getattr(found, attribute) != getattr(plain, attribute):
            reader.fault(field, f"means nothing with preset {preset}; only with {', '.join(presets)}")
    if preset == "hmac" and not found.header:
        reader.fault("header", "is required with preset hmac: the header that carries the signature")
    reader.unknown()
    return found


def _header(reader: Reader, key: str) -> str:
    return reader.string(key, pattern=HEADER, hint="the name of a header").lower()
