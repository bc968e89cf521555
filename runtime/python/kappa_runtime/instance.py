"""What this pod is at the moment, and whether it takes an invocation: decisions only, no I/O.

empty -> loading -> serving -> draining        (a load that fails leads back to empty, and the pod is spent)
"""

from kappa_api.names import REFUSED_BUSY, REFUSED_DRAINING, REFUSED_EMPTY
from kappa_api.wire import RUNTIME_DRAINING, RUNTIME_EMPTY, RUNTIME_LOADING, RUNTIME_SERVING, Health
from kappa_runtime.context import FunctionInfo

WAIT = "wait"


class Instance:
    """`slots` counts against the function's concurrency. `after` counts code that runs on behind a complete reply
    (an ASGI app's background task): it takes no slot, but a drain waits for it."""

    def __init__(self) -> None:
        self.state = RUNTIME_EMPTY
        self.info: FunctionInfo | None = None
        self._key = b""
        self.spent = False
        self.concurrency = 0
        self.slots = self.after = 0

    def __repr__(self) -> str:
        function = f" {self.info.key}@{self.info.revision}" if self.info else ""
        return f"<Instance {self.state}{function} {self.slots}/{self.concurrency} +{self.after}>"

    @property
    def in_flight(self) -> int:
        return self.slots + self.after

    def health(self) -> Health:
        info = self.info
        return Health(self.state, info.key if info else "", info.revision if info else "", self.in_flight)

    def may_specialize(self) -> bool:
        return self.state == RUNTIME_EMPTY and not self.spent

    def loading(self, info: FunctionInfo, concurrency: int) -> None:
        self.state, self.info, self.concurrency = RUNTIME_LOADING, info, concurrency
        self._key = info.key.encode("utf-8", "replace")

    def loaded(self) -> None:
        if self.state == RUNTIME_LOADING:
            self.state = RUNTIME_SERVING

    def failed(self) -> None:
        """The process has run code that failed half way: it must not be given another function."""
        self.spent, self.info = True, None
        if self.state == RUNTIME_LOADING:
            self.state = RUNTIME_EMPTY

    def drain(self) -> None:
        self.state = RUNTIME_DRAINING

    def is_for(self, function: bytes) -> bool:
        """Whether an invocation that names this function (`namespace/name`) may come here. One that names none may: it
        is not a gateway's. So may all while there is no function: `admit` refuses them."""
        return not function or self.info is None or function == self._key

    def admit(self) -> str:
        """Empty when an invocation may run now (it then has its slot), `wait`, or the reason to refuse it."""
        if self.state == RUNTIME_SERVING:
            if self.slots >= self.concurrency:
                return REFUSED_BUSY
            self.slots += 1
            return ""
        if self.state == RUNTIME_LOADING:
            return WAIT
        return REFUSED_DRAINING if self.state == RUNTIME_DRAINING else REFUSED_EMPTY
