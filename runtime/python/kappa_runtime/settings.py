"""What the runtime can be told from outside: the environment that the pod gives it, read once at the start."""

from collections.abc import MutableMapping
from dataclasses import dataclass, fields, replace

from kappa_api.names import ENV_GATEWAY_URL, ENV_POD_IP, ENV_POD_NAME, ENV_POD_TOKEN, ENV_PORT, INSTANCE_PORT

#: `KAPPA_RUNTIME_<FIELD>` overrides any number below, for tests and for unusual networks.
OVERRIDE_PREFIX = "KAPPA_RUNTIME_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes are bytes, times are seconds.

    `token`: what the platform must present; empty refuses every platform call (nobody can specialize the pod).
    `gateway_url`: where emitted events go; empty: none can be emitted.
    `keep_alive_seconds`: how long an idle connection stays open. Longer than the gateway keeps one in its pool (60 s),
    so that it is always the gateway that closes, and no request meets a connection that is just being closed here.
    `head_seconds`: how long a client may take over a request's header section before 408.
    `stall_seconds`: how long a client may take none of a reply before its connection is cut.
    `linger_seconds`, `linger_bytes`: how long and how much of an unwanted request body is read and dropped after an
    early reply; closing at once would reset the connection and could destroy that reply on its way.
    `grace_seconds`: how long code may go on after it was told to stop (deadline, client gone). Code that does not stop
    makes the process unusable: it ends as soon as the other invocations have.
    `leave_seconds`: how long an ASGI app may go on after its client has left, before it is told to stop.
    `min_load_seconds`: loading gets the function's timeout, but at least this.
    `shutdown_seconds`: how long an ASGI app's lifespan shutdown may take.
    `preload`: 1 imports common standard modules while the pod is empty (preload.py), 0 does not (7 MB less memory).
    `sweep_seconds`: how often connections are looked at for the limits above; they are that much less exact.
    """

    host: str = "0.0.0.0"
    port: int = INSTANCE_PORT
    token: str = ""
    pod_name: str = ""
    gateway_url: str = ""
    temp_dir: str = "/tmp"
    max_head_bytes: int = 64 << 10
    max_target_bytes: int = 16 << 10
    max_code_bytes: int = 64 << 20
    max_event_bytes: int = 32 << 20
    max_reply_bytes: int = 100 << 20
    max_message_bytes: int = 1 << 20
    keep_alive_seconds: float = 90.0
    head_seconds: float = 30.0
    stall_seconds: float = 60.0
    linger_seconds: float = 2.0
    linger_bytes: int = 1 << 20
    grace_seconds: float = 1.0
    leave_seconds: float = 5.0
    min_load_seconds: float = 10.0
    shutdown_seconds: float = 5.0
    sweep_seconds: float = 1.0
    preload: int = 1


def from_environment(env: MutableMapping[str, str]) -> Settings:
    """Reads the settings, and takes the token out of `env`: the function's code has no business with it.

    Raises ValueError when a number is not one.
    """
    settings = Settings(
        host=env.get(ENV_POD_IP) or Settings().host,
        port=int(env.get(ENV_PORT) or INSTANCE_PORT),
        token=env.pop(ENV_POD_TOKEN, ""),
        pod_name=env.get(ENV_POD_NAME, ""),
        gateway_url=env.get(ENV_GATEWAY_URL, ""),
        temp_dir=env.get("TMPDIR") or "/tmp",
    )
    changes: dict[str, float] = {}
    for field in fields(Settings):
        kind = type(getattr(settings, field.name))
        text = env.get(OVERRIDE_PREFIX + field.name.upper())
        if text is not None and kind in (int, float):
            changes[field.name] = kind(text)
    return replace(settings, **changes)  # type: ignore[arg-type]
