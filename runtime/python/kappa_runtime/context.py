"""The `context` that event handlers get: what AWS Lambda's has, under the same names, and Kappa's own words."""

import time
from dataclasses import dataclass


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
    """One invocation, as its handler sees it. `deadline_ms` is epoch milliseconds."""

    __slots__ = ("_function", "client_context", "deadline_ms", "identity", "request_id")

    def __init__(self, function: FunctionInfo, request_id: str, deadline_ms: int) -> None:
        self._function, self.request_id, self.deadline_ms = function, request_id, deadline_ms
        self.client_context = self.identity = None

    def __repr__(self) -> str:
        return f"<Context {self.invoked_function_arn} request_id={self.request_id} deadline_ms={self.deadline_ms}>"

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the deadline, never below 0."""
        return max(0, self.deadline_ms - int(time.time() * 1000))

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
