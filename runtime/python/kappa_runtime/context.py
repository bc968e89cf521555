"""The `context` that event handlers get: what AWS Lambda's has, under the same names, and Kappa's own words."""

import time
from dataclasses import dataclass
from typing import Any

from kappa_runtime.cloudevent import Event
from kappa_runtime.emitting import Origin, current, emit, onward_headers


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """What stays the same for all invocations of an instance. `memory_mb` is 0 when there is no limit."""

    namespace: str
    name: str
    revision: str
    pod_name: str = ""
    memory_mb: int = 0
    timeout_seconds: int = 30

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Context:
    """One invocation, as its handler sees it. `deadline_ms` is epoch milliseconds.

    `cloud_events`: what a Trigger delivers; empty for a call. `attempt`: how often this was tried before and failed.
    `hops`: how many this is away from its first cause; 0: it is the first. `onward_headers`: for requests that the
    handler makes itself, to other functions and to `/events/`, and for messages that it publishes to NATS: they carry
    the number on, so that functions that call or trigger each other in a circle are stopped.
    """

    __slots__ = (
        "_function",
        "attempt",
        "client_context",
        "cloud_events",
        "deadline_ms",
        "hops",
        "identity",
        "request_id",
    )

    def __init__(
        self,
        function: FunctionInfo,
        request_id: str,
        deadline_ms: int,
        cloud_events: tuple[Event, ...] = (),
        attempt: int = 0,
    ) -> None:
        self._function, self.request_id, self.deadline_ms = function, request_id, deadline_ms
        self.cloud_events, self.attempt, self.hops = cloud_events, attempt, 0
        self.client_context = self.identity = None

    def __repr__(self) -> str:
        return f"<Context {self.invoked_function_arn} request_id={self.request_id} deadline_ms={self.deadline_ms}>"

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the deadline, never below 0."""
        return max(0, self.deadline_ms - int(time.time() * 1000))

    def emit(self, type: str, data: Any = None, *, subject: str = "", source: str = "", id: str = "") -> Any:
        """Emits one CloudEvent to this namespace's Triggers: see `kappa_runtime.emit`. Async code awaits it."""
        if current.get() is not None:
            return emit(type, data, subject=subject, source=source, id=id)
        # A thread that the handler started has not inherited whose work this is, but was given the context
        token = current.set(Origin(self.request_id, 0.0, hops=self.hops + 1))
        try:
            return emit(type, data, subject=subject, source=source, id=id)
        finally:
            current.reset(token)

    @property
    def onward_headers(self) -> dict[str, str]:
        """See the class."""
        return onward_headers(self.request_id, self.hops + 1)

    @property
    def cloud_event(self) -> Event | None:
        """The event that a Trigger delivers, the first one of a batch; None for a call."""
        return self.cloud_events[0] if self.cloud_events else None

    @property
    def aws_request_id(self) -> str:
        return self.request_id

    @property
    def namespace(self) -> str:
        return self._function.namespace

    @property
    def function_name(self) -> str:
        return self._function.name

    @property
    def revision(self) -> str:
        return self._function.revision

    @property
    def function_version(self) -> str:
        return self._function.revision

    @property
    def memory_limit_in_mb(self) -> int:
        """The container's memory limit; 0 when there is none."""
        return self._function.memory_mb

    @property
    def invoked_function_arn(self) -> str:
        return f"kappa:{self._function.key}"

    @property
    def log_group_name(self) -> str:
        return self._function.key

    @property
    def log_stream_name(self) -> str:
        return self._function.pod_name
