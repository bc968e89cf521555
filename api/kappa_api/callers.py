"""Who may call a Function (`spec.http.auth`) and which web pages may (`spec.http.cors`): the spec and its checks.

Read by `kappa_api.function`. The same rules stand in the chart's CRD; `tests/unit/api/test_crd.py` holds them together.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kappa_api.fields import Reader

AUTH_TYPES = ("none", "apiKey", "jwt", "kubernetes")
#: Only asymmetric signatures: with HS* whoever can check a token could make one, and `none` is no signature.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
DEFAULT_ALGORITHMS = ("RS256", "ES256")
MAX_SECRETS, MAX_AUDIENCES, MAX_CLAIMS, MAX_VALUES = 16, 16, 16, 64
MAX_LEEWAY_SECONDS = 300
#: Secrets that hold callers' keys are of this type, so that the gateway can watch them and no others.
API_KEYS_SECRET_TYPE = "kappa.dev/api-keys"
#: What the data of such a Secret holds under each key's name.
KEY_HASH_PATTERN = r"sha256:[0-9a-f]{64}"
SECRET_NAME_PATTERN = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
#: An issuer or the URL of its keys. Whether http is allowed is the gateway's setting, which the spec cannot know.
URL_PATTERN = r"https?://[^\s/?#@]+([/?][^\s#]*)?"
CLAIM_PATTERN = r"\S{1,200}"
ORIGIN_PATTERN = (
    r"\*|(https?://)(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?"
)
CORS_METHODS = ("*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_CORS_METHODS = ("GET", "HEAD", "POST")
TOKEN_PATTERN = r"\*|[!#$%&'*+.^_`|~0-9A-Za-z-]+"
MAX_CORS_ENTRIES = 64
MAX_AGE_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class ApiKeyAuth:
    """Names of Secrets in the Function's namespace; a key of any of them opens."""

    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """A claim that the token must have; with `values`, one of them (or, where the claim is a list, among its items)."""

    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JwtAuth:
    """An issuer and what its tokens must say. `jwks_uri` empty: the issuer's OpenID Connect discovery names it."""

    issuer: str = ""
    audiences: tuple[str, ...] = ()
    jwks_uri: str = ""
    required_claims: tuple[ClaimRule, ...] = ()
    leeway_seconds: int = 30
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS


@dataclass(frozen=True, slots=True)
class KubernetesAuth:
    """The audiences that a token must have been made for; empty: those of the API server."""

    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may call. `none`: anybody who reaches the gateway. Only the block of the chosen type is set."""

    type: str = "none"
    api_key: ApiKeyAuth | None = None
    jwt: JwtAuth | None = None
    kubernetes: KubernetesAuth | None = None


OPEN = Auth()


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other origins may read the answers (Fetch standard). `*` in a list means any."""

    allow_origins: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = DEFAULT_CORS_METHODS
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    max_age_seconds: int = 600


def read_auth(reader: Reader) -> Auth:
    """`spec.http.auth`."""
    kind = reader.choice("type", "none", AUTH_TYPES)
    for block in AUTH_TYPES[1:]:
        if block in reader and block != kind:
            reader.fault(block, f"goes with type {block}, but type is {kind}: remove it, or change the type")
    api_key, jwt = reader.child("apiKey"), reader.child("jwt")
    if kind in ("apiKey", "jwt") and kind not in reader:
        reader.fault(kind, f"is required for type {kind}")
    kubernetes = reader.child("kubernetes")
    reader.unknown()
    return Auth(
        type=kind,
        api_key=_api_key(api_key) if kind == "apiKey" and kind in reader else None,
        jwt=_jwt(jwt) if kind == "jwt" and kind in reader else None,
        kubernetes=_kubernetes(kubernetes) if kind == "kubernetes" else None,
    )


def _api_key(reader: Reader) -> ApiKeyAuth:
    secrets = []
    for item in reader.items("secrets"):
        secrets.append(item.string("name", required=True, pattern=SECRET_NAME_PATTERN, hint="the name of a Secret"))
        item.unknown()
    _count(reader, "secrets", secrets, MAX_SECRETS, least=1, hint="name the Secrets that hold the keys")
    reader.unknown()
    return ApiKeyAuth(tuple(secrets))


def _jwt(reader: Reader) -> JwtAuth:
    rules = []
    for item in reader.items("requiredClaims"):
        name = item.string("name", required=True, pattern=CLAIM_PATTERN, hint="the name of a claim")
        values = item.strings("values")
        _count(item, "values", values, MAX_VALUES)
        rules.append(ClaimRule(name, values))
        item.unknown()
    _count(reader, "requiredClaims", rules, MAX_CLAIMS)
    audiences = reader.strings("audiences", lambda text: "" if text else "must not be empty")
    _count(reader, "audiences", audiences, MAX_AUDIENCES, least=1, hint="a token for somebody else must not open")
    algorithms = reader.strings(
        "algorithms", lambda name: "" if name in ALGORITHMS else f"{name[:20]!r} is not one of {', '.join(ALGORITHMS)}"
    )
    if "algorithms" in reader and not algorithms:
        reader.fault("algorithms", "must name at least one algorithm; leave it out for the default")
    url_hint = "an https:// URL without user name and fragment"
    found = JwtAuth(
        issuer=reader.string("issuer", required=True, pattern=URL_PATTERN, hint=url_hint),
        audiences=audiences,
        jwks_uri=reader.string("jwksUri", pattern=URL_PATTERN, hint=url_hint),
        required_claims=tuple(rules),
        leeway_seconds=reader.integer("leewaySeconds", 30, 0, MAX_LEEWAY_SECONDS),
        algorithms=algorithms or DEFAULT_ALGORITHMS,
    )
    reader.unknown()
    return found


def _kubernetes(reader: Reader) -> KubernetesAuth:
    audiences = reader.strings("audiences", lambda text: "" if text else "must not be empty")
    _count(reader, "audiences", audiences, MAX_AUDIENCES)
    reader.unknown()
    return KubernetesAuth(audiences)


def read_cors(reader: Reader) -> Cors:
    """`spec.http.cors`."""
    origins = reader.strings("allowOrigins", _origin_problem)
    _count(reader, "allowOrigins", origins, MAX_CORS_ENTRIES, least=1, hint="an origin such as https://app.example.org")
    methods = reader.strings(
        "allowMethods", lambda m: "" if m in CORS_METHODS else f"{m[:20]!r} is not one of {', '.join(CORS_METHODS)}"
    )
    headers = reader.strings("allowHeaders", _token_problem)
    exposed = reader.strings("exposeHeaders", _token_problem)
    for key, found in (("allowHeaders", headers), ("exposeHeaders", exposed)):
        _count(reader, key, found, MAX_CORS_ENTRIES)
    credentials = reader.boolean("allowCredentials", False)
    if credentials and "*" in origins:
        reader.fault(
            "allowCredentials", "does not go with allowOrigins *: name the origins that may send cookies and keys"
        )
    cors = Cors(
        allow_origins=origins,
        allow_methods=methods or DEFAULT_CORS_METHODS,
        allow_headers=headers,
        expose_headers=exposed,
        allow_credentials=credentials,
        max_age_seconds=reader.integer("maxAgeSeconds", 600, 0, MAX_AGE_SECONDS),
    )
    reader.unknown()
    return cors


def _origin_problem(origin: str) -> str:
    if len(origin) <= 300 and re.fullmatch(ORIGIN_PATTERN, origin):
        return ""
    examples = "https://app.example.org (lower case, no path), https://*.example.org or *"
    return f"{origin[:80]!r} is not an origin: write {examples}"


def _token_problem(name: str) -> str:
    return "" if len(name) <= 200 and re.fullmatch(TOKEN_PATTERN, name) else f"{name[:80]!r} is not a header name"


def _count(reader: Reader, key: str, found: Sequence[object], most: int, *, least: int = 0, hint: str = "") -> None:
    if len(found) > most:
        reader.fault(key, f"has {len(found)} entries: at most {most}")
    elif len(found) < least:
        reader.fault(key, f"must have at least {least} entry: {hint}")
