"""The whole gateway at random, in virtual time: callers, instances and pods do anything in any order.

What is checked after every step: no instance ever has more requests than its concurrency, slots are counted exactly and
given back once, nobody waits beside a free slot, every accepted request is answered by its deadline, and an answer that
is bad news has a reason that the test knows of. At the end the faults stop, and everybody must be served.
"""

from collections.abc import Iterator

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kappa_gateway_world import FAILED, OK, Exchange, GatewayWorld, Host, Sent, refusal
from kappa_profiles import tries

from kappa_gateway.deadlines import SLOT_SECONDS
from kappa_gateway.retry import MOST_LOST
from kappa_gateway.states import DOUBTED, HUNG, IN_SERVICE, OVER, WAITING

TIMEOUT = 2
LARGE = 200_000
FUNCTIONS = ("one", "one", "two")
#: What may come before the deadline, and what must have happened for it (any of them).
REASONS = {
    "not_found": {"deleted"},
    "no_capacity": {"large", "unreachable"},
    "instance_died": {"lost", "unreachable"},
    "bad_response": {"garbage"},
}
AT_THE_DEADLINE = {"no_capacity", "deadline", "request_timeout"}


class GatewayMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = GatewayWorld()
        self.generation = 0
        self.unfinished: list[Sent] = []
        self.world.function("one", timeout=TIMEOUT)
        self.world.pod("one", 2)

    def pick(self, items: list, number: int):  # type: ignore[no-untyped-def, type-arg]
        return items[number % len(items)]

    def live(self) -> Iterator[Sent]:
        return (request for request in self.world.requests if not request.done)

    def excuse(self, function: str, what: str) -> None:
        """From now on this may be why a request of the function fails."""
        for request in self.live():
            if request.function == function:
                request.excuses.add(what)
                request.losses += what == "lost"

    # --- callers ------------------------------------------------------------------------------------------------------
    @rule(function=st.sampled_from(FUNCTIONS), method=st.sampled_from(["GET", "GET", "POST"]))
    def calls(self, function: str, method: str) -> None:
        self.world.send(function, method)

    @rule(size=st.sampled_from([10, LARGE]), whole=st.booleans())
    def uploads(self, size: int, whole: bool) -> None:
        request = self.world.send("one", "POST", size, None if whole else size // 2)
        if size == LARGE:
            request.excuses.add("large")
        if request.rest:
            self.unfinished.append(request)

    @precondition(lambda self: self.unfinished)
    @rule(number=st.integers(0, 50))
    def finishes_the_upload(self, number: int) -> None:
        request = self.pick(self.unfinished, number)
        self.unfinished.remove(request)
        self.world.finish(request)

    @precondition(lambda self: any(self.live()))
    @rule(number=st.integers(0, 50))
    def gives_up(self, number: int) -> None:
        self.world.give_up(self.pick(list(self.live()), number))

    # --- instances ----------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.world.look())
    @rule(number=st.integers(0, 50), what=st.sampled_from(["ok", "fails"]))
    def answers(self, number: int, what: str) -> None:
        self.answer(number, what)

    @precondition(lambda self: self.world.look())
    @rule(number=st.integers(0, 50), what=st.sampled_from(["busy", "draining", "empty", "misdirected"]))
    def refuses(self, number: int, what: str) -> None:
        self.answer(number, what)

    @precondition(lambda self: self.world.look())
    @rule(number=st.integers(0, 50), what=st.sampled_from(["dies", "garbage", "streams", "streams"]))
    def does_something_else(self, number: int, what: str) -> None:
        self.answer(number, what)

    def answer(self, number: int, what: str) -> None:
        host, exchange = self.pick(self.world.look(), number)
        if exchange.began:
            self.goes_on(host, exchange, what)
        elif what == "ok":
            host.reply(exchange, OK)
        elif what == "fails":
            host.reply(exchange, FAILED)
        elif what in ("busy", "draining", "empty", "misdirected"):
            host.reply(exchange, refusal(what))
        elif what == "garbage":
            self.excuse(host.function, "garbage")
            host.reply(exchange, b"NOT HTTP\r\n\r\n")
        elif what == "streams":
            host.reply(exchange, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", last=False)
        else:
            self.excuse(host.function, "lost")
            exchange.wire.hang_up()
        self.world.loop.settle()

    def goes_on(self, host: Host, exchange: Exchange, what: str) -> None:
        if what in ("dies", "garbage"):
            exchange.wire.hang_up()
        elif what == "streams":
            exchange.wire.feed(b"2\r\nok\r\n")
        else:
            host.reply(exchange, b"0\r\n\r\n")

    # --- the cluster --------------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.world.hosts) < 5)
    @rule(function=st.sampled_from(FUNCTIONS), concurrency=st.integers(1, 3))
    def pod_appears(self, function: str, concurrency: int) -> None:
        self.world.pod(function, concurrency)

    @precondition(lambda self: self.world.hosts)
    @rule(number=st.integers(0, 50), dies=st.booleans())
    def pod_goes(self, number: int, dies: bool) -> None:
        host = self.pick(list(self.world.hosts.values()), number)
        if dies:
            self.excuse(host.function, "lost")
            self.excuse(host.function, "unreachable")
            self.world.remove(host)
        else:
            self.excuse(host.function, "lost")  # if it is hung, the gateway ends what is there
            self.world.show(host, "draining")

    @precondition(lambda self: self.world.hosts)
    @rule(number=st.integers(0, 50))
    def pod_stops_listening_or_starts_again(self, number: int) -> None:
        host = self.pick(list(self.world.hosts.values()), number)
        self.excuse(host.function, "lost")
        if self.world.loop.hosts.pop(host.address, None) is None:
            self.world.loop.hosts[host.address] = host.connect
        host.die()
        self.world.loop.settle()

    @precondition(lambda self: self.world.hosts)
    @rule(number=st.integers(0, 50))
    def pod_hangs_or_goes_on(self, number: int) -> None:
        host = self.pick(list(self.world.hosts.values()), number)
        host.hung = not host.hung

    @precondition(lambda self: self.world.hosts)
    @rule(number=st.integers(0, 50))
    def pod_takes_no_connections_or_does_again(self, number: int) -> None:
        """Its node is lost, or its queue of connections is full."""
        address = self.pick(list(self.world.hosts.values()), number).address
        self.world.loop.silent ^= {address}

    @precondition(lambda self: self.world.hosts)
    @rule(number=st.integers(0, 50), holds=st.sampled_from(FUNCTIONS))
    def address_is_reused(self, number: int, holds: str) -> None:
        """Another pod has a pod's address, and holds this function; the gateway has not heard of it."""
        host = self.pick(list(self.world.hosts.values()), number)
        self.excuse(host.function, "lost")
        host.die()
        host.holds = holds
        self.world.loop.settle()

    @precondition(lambda self: self.world.hosts)
    @rule(number=st.integers(0, 50), concurrency=st.integers(1, 3))
    def pod_changes(self, number: int, concurrency: int) -> None:
        host = self.pick(list(self.world.hosts.values()), number)
        host.lowered = host.lowered or concurrency < host.concurrency
        host.concurrency = concurrency
        self.world.show(host)

    @rule(function=st.sampled_from(FUNCTIONS), what=st.sampled_from(["applied", "applied", "deleted", "made anew"]))
    def function_changes(self, function: str, what: str) -> None:
        """Made anew: the deletion was missed, only the new one is seen."""
        if what == "deleted":
            self.excuse(function, "deleted")
            self.world.gateway.catalog.remove_function(f"default/{function}")
            self.world.loop.settle()
        elif what == "made anew":
            self.excuse(function, "lost")
            self.apply(function, uid=f"u{self.generation}x")
        else:
            self.apply(function)

    def apply(self, function: str, uid: str = "") -> None:
        self.generation += 1
        uid = uid or self.world.uids.get(function, "u1")
        idempotent = bool(self.generation % 2)
        self.world.function(function, uid=uid, generation=self.generation, timeout=TIMEOUT, idempotent=idempotent)

    # --- time ---------------------------------------------------------------------------------------------------------
    @rule(seconds=st.sampled_from([0.001, 0.006, 0.006, 0.03, 0.1, 0.7]))
    def time_passes(self, seconds: float) -> None:
        self.world.loop.pass_(seconds)

    # --- what always holds --------------------------------------------------------------------------------------------
    @invariant()
    def no_instance_has_too_many(self) -> None:
        self.world.look()
        for host in self.world.hosts.values():
            assert len(host.pending) <= host.concurrency or host.lowered or host.hung, host.name

    @invariant()
    def slots_are_counted(self) -> None:
        world = self.world
        calls, known = world.calls(), world.known()
        for instance in known:
            assert instance.in_service == sum(1 for call in calls if call.instance is instance), instance
        for state in world.gateway.catalog.functions.values():
            queue = state.queue
            mine = [call for call in calls if call.state is state]
            assert queue.in_service == sum(1 for call in mine if call.place is IN_SERVICE)
            waiting = sorted((call for call in mine if call.place is WAITING), key=lambda call: call.order)
            assert queue.waiters() == waiting
            assert not waiting or not queue.free, "somebody waits beside a free slot"
        for call in calls:
            if call.place is WAITING:
                assert call.state is not None
                assert call.state.entry is not None, "waits for a function that is gone"
                assert call.state is world.gateway.catalog.functions.get(call.state.queue.key)
            assert (call.instance is not None) == (call.place is IN_SERVICE)
            if call.place is OVER:
                assert call.replied or call.deadline <= world.loop.time(), "it still waits for something"

    @invariant()
    def everybody_is_answered_in_time(self) -> None:
        now = self.world.loop.time()
        for request in list(self.world.requests):
            if request.done:
                self.world.requests.remove(request)
                self.judge(request, now)
            else:
                assert now - request.arrived <= TIMEOUT + 3 * SLOT_SECONDS, (request, request.answer)

    def judge(self, request: Sent, now: float) -> None:
        """Whether there was a reason for this answer."""
        if request.given_up or (request.status in (200, 500) and not request.code):
            return
        late = now - request.arrived >= TIMEOUT - SLOT_SECONDS
        if not request.status:  # cut off without a word: only a reply that had begun may be
            raise AssertionError("a connection was closed without an answer")
        if request.code in AT_THE_DEADLINE and late:
            return
        if request.code == "not_found" and request.function == "two":
            return  # it may never have been there
        allowed = REASONS.get(request.code)
        assert allowed is not None, f"{request.status} {request.code} after {now - request.arrived:.3f} s"
        if request.code == "instance_died":
            assert request.method == "POST" or request.losses > MOST_LOST, "a GET may be sent again"
        if request.code == "no_capacity":
            assert "large" in request.excuses, "it could have been sent again"
        if request.code != "not_found":
            assert request.excuses & allowed, f"{request.code}, but only {request.excuses}"

    # --- the end ------------------------------------------------------------------------------------------------------
    def teardown(self) -> None:
        """The faults stop: whoever waits is served, and nothing is left over."""
        world = getattr(self, "world", None)
        if world is None:
            return
        try:
            self.recover(world)
        finally:
            world.close()

    def recover(self, world: GatewayWorld) -> None:
        for request in self.unfinished:
            world.finish(request)
        world.loop.silent.clear()
        for host in world.hosts.values():
            host.hung = False
            world.loop.hosts[host.address] = host.connect
        for _ in range(4):
            world.loop.pass_((TIMEOUT + 1.0) / 4)
            world.look()
        self.everybody_is_answered_in_time()
        for function in sorted(set(FUNCTIONS)):
            self.apply(function)
            world.pod(function, 1)
            for _ in range(3):
                world.send(function)
        for _ in range(40):
            for host, exchange in world.look():
                host.reply(exchange, b"0\r\n\r\n" if exchange.began else OK)
            world.loop.pass_(0.02)
        assert [(request.status, request.code) for request in world.requests] == [(200, "")] * 6
        assert world.calls() == []
        for state in world.gateway.catalog.functions.values():
            assert (state.queue.in_service, state.queue.waiting) == (0, 0)
            assert not any(instance.state in (DOUBTED, HUNG) for instance in state.queue.instances.values())
        assert all(not instance.in_service for instance in world.known())


GatewayMachine.TestCase.settings = tries(150, steps=50)
TestGatewayAtRandom = GatewayMachine.TestCase
