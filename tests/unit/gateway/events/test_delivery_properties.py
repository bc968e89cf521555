"""The delivery at random: gateways that crash, JetStream that leaves, functions that fail and vanish, in any order.

What must hold, whatever happened: nothing that was accepted is lost; nothing has more attempts than it may, and nothing
runs after it has succeeded, unless a crash or an outage came in between; throttling costs nothing.
"""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kappa_delivery_world import LANE, OK, DeliveryWorld
from kappa_gateway_world import FAILED, refusal
from kappa_profiles import tries

from kappa_gateway.events.delivery.target import MOST_MISSING
from kappa_gateway.events.work import Work

RETRIES = 2


class DeliveryMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = DeliveryWorld(ack_seconds=6.0, timeout=5)
        self.function = True
        self.ran: Counter[str] = Counter()  # answered by a handler, well or badly
        self.good: Counter[str] = Counter()
        self.trouble = False  # since then, what has run may run again

    # --- the world ----------------------------------------------------------------------------------------------------
    @rule(count=st.integers(1, 4))
    def work_is_accepted(self, count: int) -> None:
        for _ in range(count):
            self.world.accept()

    @rule(concurrency=st.integers(1, 3))
    def a_pod_appears(self, concurrency: int) -> None:
        if len(self.world.hosts) < 3:
            self.world.pod("hello", concurrency)

    @rule(number=st.integers(0, 9), dies=st.booleans())
    def a_pod_goes(self, number: int, dies: bool) -> None:
        hosts = list(self.world.hosts.values())
        if hosts and (dies or not any(host is at for _, at, _ in self.world.runs() for host in hosts)):
            host = hosts[number % len(hosts)]
            for work, at, _ in self.world.runs():
                if at is host:
                    self.ran[work] += 1
            self.world.remove(host)

    @rule(number=st.integers(0, 99), answer=st.sampled_from([OK, OK, FAILED, refusal("busy"), refusal("empty"), b""]))
    def an_instance_answers(self, number: int, answer: bytes) -> None:
        runs = self.world.runs()
        if not runs:
            return
        work, host, exchange = runs[number % len(runs)]
        if b"kappa-refused" not in answer:
            self.ran[work] += 1
            self.good[work] += answer == OK
        if answer:
            host.reply(exchange, answer)
        else:
            exchange.wire.hang_up()
            del host.pending[exchange.wire]
        self.world.loop.settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 20.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        before = {work for work, _, _ in self.world.runs()}
        self.world.pass_(seconds)
        if seconds >= 3.0:  # attempts whose deadline passed count as such
            for work in before - {work for work, _, _ in self.world.runs()}:
                self.ran[work] += 1
            self.trouble |= bool(before) and seconds > 5

    @rule()
    def nats_leaves_or_returns(self) -> None:
        if self.world.nats.away:
            self.world.come_back()
        else:
            self.world.leave()
        self.trouble = True

    @rule()
    def the_function_goes_or_returns(self) -> None:
        if self.function:
            self.world.gateway.catalog.remove_function(LANE.key)
        else:
            self.world.function("hello", timeout=5)
        self.function = not self.function
        self.world.loop.settle()
        self.trouble = True

    @precondition(lambda self: self.world.engine is not None)
    @rule()
    def the_gateway_crashes_and_another_begins(self) -> None:
        self.world.crash()
        self.world.begin()
        self.trouble = True

    @precondition(lambda self: not self.world.nats.away)
    @rule()
    def the_gateway_ends_in_order_and_another_begins(self) -> None:
        self.world.drain()
        self.world.begin()
        self.trouble = True  # what runs is answered well while it ends: not counted here

    # --- what always holds --------------------------------------------------------------------------------------------
    @invariant()
    def nothing_is_lost(self) -> None:
        held = {Work.read(kept.headers, b"").id for kept in self.world.nats.work.values()}
        dead = {Work.read(kept.headers, b"").id for kept in self.world.nats.dead.values()}
        for work in self.world.accepted:
            record = self.world.record(work)
            if work not in held:
                assert record is not None, "acknowledged, and nothing written"
                assert record.final
                assert record.state == "succeeded" or work in dead

    @invariant()
    def what_ran_well_is_not_run_again(self) -> None:
        if not self.trouble:
            assert all(count <= 1 for count in self.good.values())
            assert all(count <= RETRIES + 1 for count in self.ran.values())

    @invariant()
    def no_more_in_hand_than_could_run(self) -> None:
        if self.world.engine is not None:
            most = 20 if not self.trouble else MOST_MISSING  # of a function that is gone they only wait for their end
            assert len(self.world.engine.shop.items) <= most
            assert all(not item.over for item in self.world.engine.shop.items.values())

    def teardown(self) -> None:
        """When all faults end, all work comes to its end, and nothing is left over."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.come_back()
        if not self.function:
            world.function("hello", timeout=5)
        world.pod("hello", 3)
        for _ in range(3000):
            for _, host, exchange in world.runs():
                host.reply(exchange, OK)
            world.loop.settle()
            if not world.nats.work:
                break
            world.pass_(0.5)
        assert not world.nats.work, "it does not go on"
        for work in world.accepted:
            record = world.record(work)
            assert record is not None
            assert record.final
        assert world.engine is not None
        assert not world.engine.shop.items
        queue = world.gateway.catalog.functions[LANE.key].queue
        assert (queue.waiting, queue.in_service) == (0, 0)
        world.close()


DeliveryMachine.TestCase.settings = tries(15, steps=30)
TestDeliveryAtRandom = DeliveryMachine.TestCase
