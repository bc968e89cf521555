"""Every name that two components must spell alike: API group, labels, headers, environment variables, paths.

Label and annotation keys follow the Kubernetes convention `<domain>/<name>`; headers are lower case because HTTP/2 and
our own parsers want them so.
"""

from typing import Final

GROUP: Final = "kappa.dev"
VERSION: Final = "v1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FUNCTION_KIND: Final = "Function"
FUNCTION_PLURAL: Final = "functions"
RUNTIME_KIND: Final = "Runtime"
RUNTIME_PLURAL: Final = "runtimes"
TRIGGER_KIND: Final = "Trigger"
TRIGGER_PLURAL: Final = "triggers"

# --- labels and annotations -------------------------------------------------------------------------------------------
LABEL_RUNTIME: Final = "kappa.dev/runtime"
LABEL_FUNCTION: Final = "kappa.dev/function"
LABEL_REVISION: Final = "kappa.dev/revision"
LABEL_STATE: Final = "kappa.dev/state"
#: Id of the platform secret that a pod's token was derived from (`keyring.key_id`).
LABEL_SECRET_ID: Final = "kappa.dev/secret-id"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"

#: Invocations that the instance runs at a time, as the gateway must count them (a decimal integer, at least 1).
ANNOTATION_CONCURRENCY: Final = "kappa.dev/concurrency"
#: When the instance was told to drain, RFC 3339 in UTC: the start of its grace period.
ANNOTATION_DRAIN_SINCE: Final = "kappa.dev/drain-since"
#: Why the operator made a pod of its own rather than claim one of the pool.
ANNOTATION_OWN_POD: Final = "kappa.dev/own-pod-reason"
#: On a pool pod: a digest of the manifest it was made from, which changes with its Runtime's spec.
ANNOTATION_TEMPLATE: Final = "kappa.dev/template"
#: On a Namespace: the most instances that its Functions may have together (a decimal integer).
ANNOTATION_MAX_INSTANCES: Final = "kappa.dev/max-instances"
#: On the operator's Lease: `host:port` of the leader's internal API.
ANNOTATION_ADDRESS: Final = "kappa.dev/address"

# --- values of LABEL_STATE --------------------------------------------------------------------------------------------
STATE_POOL: Final = "pool"  # holds no code, belongs to no function
STATE_STARTING: Final = "starting"  # belongs to a function, not yet proven: gateways ignore it
STATE_SERVING: Final = "serving"
STATE_DRAINING: Final = "draining"

COMPONENT_OPERATOR: Final = "operator"
COMPONENT_GATEWAY: Final = "gateway"
COMPONENT_INSTANCE: Final = "instance"
COMPONENT_NATS: Final = "nats"
MANAGER: Final = "kappa-operator"
LEASE_NAME: Final = "kappa-operator"
SYSTEM_NAMESPACE: Final = "kappa-system"

# --- headers ----------------------------------------------------------------------------------------------------------
#: Every header with this prefix belongs to the platform: the gateway drops what a client sends under it.
HEADER_PREFIX: Final = "kappa-"
HEADER_REQUEST_ID: Final = "kappa-request-id"
HEADER_DEADLINE: Final = "kappa-deadline-ms"  # epoch milliseconds
HEADER_DURATION: Final = "kappa-duration-ms"  # decimal milliseconds, may have a fraction
#: Whose invocation it is, `namespace/name`: on every one that a gateway sends. A runtime refuses what is not its own.
HEADER_FUNCTION: Final = "kappa-function"
HEADER_REFUSED: Final = "kappa-refused"
HEADER_ERROR: Final = "kappa-error"  # exception type of the handler
HEADER_ERROR_SOURCE: Final = "kappa-error-source"  # gateway | function
HEADER_ROUTE: Final = "kappa-route"  # path template that matched, e.g. /hello/{name}; absent on /fn/ calls
#: Who calls, as the gateway verified it. ASGI applications and images see these headers.
HEADER_IDENTITY_PREFIX: Final = "kappa-identity-"
HEADER_IDENTITY_TYPE: Final = "kappa-identity-type"  # apiKey | jwt | kubernetes; absent where everybody may call
HEADER_IDENTITY_PRINCIPAL: Final = "kappa-identity-principal"  # the verified caller's name, percent-encoded
HEADER_IDENTITY_DATA: Final = "kappa-identity-data"  # base64url of the JSON of requestContext.authorizer
HEADER_PATH_PARAMETERS: Final = "kappa-path-parameters"  # application/x-www-form-urlencoded
#: The body holds CloudEvents, and event handlers want them in this shape (one of SHAPES); absent on plain HTTP calls.
HEADER_EVENT_SHAPE: Final = "kappa-event-shape"
#: How often this invocation was attempted before and failed, decimal; only on asynchronous ones.
HEADER_ATTEMPT: Final = "kappa-attempt"
#: Which pod emits an event, `namespace/name`: on `/events/<namespace>`, beside the pod's token as a bearer token.
HEADER_POD: Final = "kappa-pod"
#: How many hops what is sent is away from its first cause, decimal; absent: 0. On an invocation: how many hops away
#: what it causes is (absent: 1), so that it can be sent on as it came. Anybody may send it.
HEADER_HOPS: Final = "kappa-hops"
#: The same of a CloudEvent, as its extension attribute.
EXTENSION_HOPS: Final = "kappahops"

REFUSED_BUSY: Final = "busy"
REFUSED_DRAINING: Final = "draining"
REFUSED_EMPTY: Final = "empty"
REFUSED_MISDIRECTED: Final = "misdirected"  # it holds the code of another function

#: Shapes of events for handlers of the signature `event`. `cloudevent`: the event as its JSON format has it.
SHAPES: Final = ("cloudevent", "schedule", "s3", "sqs", "dynamodb", "http")

SOURCE_GATEWAY: Final = "gateway"
SOURCE_FUNCTION: Final = "function"

# --- the runtime's own paths ------------------------------------------------------------------------------------------
PATH_PREFIX: Final = "/_kappa/"
PATH_HEALTH: Final = "/_kappa/health"
PATH_REVISION: Final = "/_kappa/revision"
PATH_DRAIN: Final = "/_kappa/drain"

# --- internal APIs ----------------------------------------------------------------------------------------------------
PATH_DEMAND: Final = "/v1/demand"
PATH_STATS: Final = "/v1/stats"
PATH_HEALTHZ: Final = "/healthz"
PATH_READYZ: Final = "/readyz"
PATH_METRICS: Final = "/metrics"
PATH_TRIGGERS: Final = "/v1/triggers"  # answers `kappa_api.trigger_report.GatewayReport`
PATH_DEAD: Final = "/v1/dead"
FUNCTION_PATH: Final = "/fn/"
#: `/async/<namespace>/<name>` accepts, `/async/<id>` tells.
ASYNC_PATH: Final = "/async/"
#: `/events/<namespace>` takes CloudEvents.
EVENTS_PATH: Final = "/events/"
#: `/hooks/<namespace>/<trigger>` takes what other systems post.
HOOKS_PATH: Final = "/hooks/"

# --- environment ------------------------------------------------------------------------------------------------------
ENV_POD_NAME: Final = "POD_NAME"
ENV_POD_IP: Final = "POD_IP"
ENV_PORT: Final = "PORT"
ENV_POD_TOKEN: Final = "KAPPA_POD_TOKEN"
ENV_SECRET: Final = "KAPPA_PLATFORM_SECRET"
ENV_SECRET_FILE: Final = "KAPPA_PLATFORM_SECRET_FILE"
ENV_SYSTEM_NAMESPACE: Final = "KAPPA_SYSTEM_NAMESPACE"
ENV_SHARED_HOSTS: Final = "KAPPA_SHARED_HOSTS"
ENV_BIND: Final = "KAPPA_BIND"
ENV_DATA_PORT: Final = "KAPPA_DATA_PORT"
ENV_ADMIN_PORT: Final = "KAPPA_ADMIN_PORT"
ENV_GATEWAY_URL: Final = "KAPPA_GATEWAY_URL"
#: Comma-separated; empty: no asynchronous invocations and no Triggers.
ENV_NATS_URL: Final = "KAPPA_NATS_URL"
ENV_NATS_TOKEN: Final = "KAPPA_NATS_TOKEN"
#: With it, the token is this user's password: servers that also let devices in know users, and no bare tokens.
ENV_NATS_USER: Final = "KAPPA_NATS_USER"
#: `true`: sources and destinations may be on this machine (embedded platform, tests).
ENV_ALLOW_LOOPBACK: Final = "KAPPA_ALLOW_LOOPBACK"

#: Port of every instance, whatever its image: each pod has an address of its own.
INSTANCE_PORT: Final = 8080
#: Name of the container port that serves the internal API, on operator and gateway pods.
ADMIN_PORT_NAME: Final = "admin"
#: Name of the function's container in an instance.
CONTAINER_NAME: Final = "function"
