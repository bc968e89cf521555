"""The operator at random: claims, loads and drains while leaders die, hang and overlap, and calls fail in every way.

After every step: a pod belongs to one function for ever and moves only along its table, nothing stays reserved without
a task that works on it, and of a claim and its pod exactly one is counted. At the end the faults stop, and the wanted
instances must be there, with the newest code, and nothing besides.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kappa_operator_random import API_FAULTS, NAMES, POD_FAULTS, Cluster, Replica
from kappa_profiles import tries


class OperatorMachine(RuleBasedStateMachine):
    @initialize(
        pool=st.integers(0, 3),
        latency=st.sampled_from([(0.0, 0.0), (0.05, 0.02), (0.05, 0.02), (0.05, 0.15)]),
        drain_seconds=st.sampled_from([0.0, 2.0, 2.0]),
    )
    def begin(self, pool: int, latency: tuple[float, float], drain_seconds: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.alone = True  # one operator at a time, so far
        self.do(self._begin(pool, latency, drain_seconds))

    async def _begin(self, pool: int, latency: tuple[float, float], drain_seconds: float) -> None:
        self.cluster = Cluster(pool, *latency, drain_seconds)
        for name in NAMES:
            self.cluster.apply(name)
        await self.cluster.run(1.0)

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    # --- what users do ------------------------------------------------------------------------------------------------
    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 3))
    def wants(self, name: str, number: int) -> None:
        self.cluster.want(name, number)
        self.do(self.cluster.run(0.0))

    @rule(name=st.sampled_from(NAMES), anew=st.sampled_from([False, False, True]))
    def applies(self, name: str, anew: bool) -> None:
        self.cluster.apply(name, anew=anew)
        self.do(self.cluster.run(0.0))

    @rule()
    def garbage_is_collected(self) -> None:
        self.cluster.collect()

    # --- what operators suffer ----------------------------------------------------------------------------------------
    @rule(
        end=st.sampled_from(["killed", "killed", "killed", "hangs", "unaware"]),
        name=st.sampled_from(NAMES),
        after=st.sampled_from([0.0, 0.03, 0.06, 0.1]),
    )
    def another_one_leads(self, end: str, name: str, after: float) -> None:
        """In the middle of something; the next one has other things to do."""
        other = next(item for item in NAMES if item != name)
        self.wants(other, 3)
        self.do(self.cluster.run(after))
        old = self.cluster.leader
        if end == "killed":
            self.do(old.die())
        else:
            self.alone = False
            if end == "hangs":
                old.pause()
        self.do(self._lead())
        self.wants(other, 1)
        self.wants(name, 3)

    async def _lead(self) -> None:
        self.cluster.lead()
        while len(self.cluster.replicas) > 3:
            await self.cluster.replicas[0].die()
        await self.cluster.run(0.0)

    @rule(name=st.sampled_from(NAMES), after=st.sampled_from([0.05, 0.1, 0.15, 0.2]))
    def one_proves_much_later(self, name: str, after: float) -> None:
        """It hangs while it proves a revision; meanwhile another one proves it, and drains what holds it."""
        old = self.cluster.leader
        self.cluster.apply(name)
        self.do(self.cluster.run(after, 0.05))
        self._pass_over(old, name, 0)

    @rule(name=st.sampled_from(NAMES), after=st.sampled_from([0.0, 0.03]))
    def one_claims_much_later(self, name: str, after: float) -> None:
        """It hangs while it claims pods of the pool; meanwhile another one takes them for another function."""
        old = self.cluster.leader
        self.wants(name, 3)
        self.do(self.cluster.run(after))
        self.cluster.want(name, 1)
        self._pass_over(old, next(item for item in NAMES if item != name), 3)

    def _pass_over(self, old: Replica, name: str, number: int) -> None:
        """Another one leads until its work is done and this is wanted; then the old one goes on where it was."""
        self.alone = False
        old.pause()
        self.do(self._lead())
        self.do(self.cluster.run(0.6, 0.3))
        self.wants(name, number)
        self.do(self.cluster.run(0.2, 0.1))
        old.resume()
        self.do(self.cluster.run(0.1, 0.1))

    @rule(number=st.integers(0, 2))
    def one_hangs_or_goes_on(self, number: int) -> None:
        replicas = self.cluster.replicas
        replica = replicas[number % len(replicas)]
        if replica.paused:
            replica.resume()
        else:
            replica.pause()
        self.do(self.cluster.run(0.0))

    @precondition(lambda self: len(self.cluster.replicas) > 1)
    @rule()
    def the_old_one_notices(self) -> None:
        self.do(self.cluster.replicas[0].die())

    # --- what goes wrong ----------------------------------------------------------------------------------------------
    @rule(fault=st.sampled_from(API_FAULTS), name=st.sampled_from(NAMES), number=st.integers(1, 3), pods=st.booleans())
    def the_next_write_fails(self, fault: str, name: str, number: int, pods: bool) -> None:
        self.cluster.api_fault, self.cluster.only_pods = fault, pods
        self.wants(name, number)

    @rule(
        fault=st.sampled_from(POD_FAULTS),
        name=st.sampled_from(NAMES),
        number=st.integers(1, 3),
        after=st.sampled_from([0.0, 0.03, 0.09]),
    )
    def the_next_load_fails(self, fault: str, name: str, number: int, after: float) -> None:
        self.cluster.pod_fault = fault
        self.wants(name, number)
        self.do(self.cluster.run(after, 0.03))

    @precondition(lambda self: self.cluster.pods())
    @rule(number=st.integers(0, 20), how=st.sampled_from(["gone", "failed", "silent"]))
    def pod_dies(self, number: int, how: str) -> None:
        paths = sorted(self.cluster.pods())
        self.cluster.end_pod(paths[number % len(paths)], how)
        self.do(self.cluster.run(0.0))

    @rule(seconds=st.sampled_from([0.03, 0.03, 0.06, 0.2, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.cluster.run(seconds, max(0.5, seconds / 5)))

    # --- what always holds --------------------------------------------------------------------------------------------
    @invariant()
    def pods_keep_to_their_table(self) -> None:
        assert self.cluster.wrong == []

    @invariant()
    def nothing_stays_reserved(self) -> None:
        for replica in self.cluster.replicas:
            assert replica.bugs() == []
            if replica.idle:
                assert replica.left_over() == []

    @invariant()
    def nobody_is_served_by_another_ones_code(self) -> None:
        if self.alone:
            assert self.cluster.mixed == []

    # --- the end ------------------------------------------------------------------------------------------------------
    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        try:
            self.do(self.recover())
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    async def recover(self) -> None:
        cluster = self.cluster
        cluster.api_fault = cluster.pod_fault = ""
        cluster.doubted = False
        for replica in cluster.replicas[:-1]:
            replica.resume()
        cluster.leader.resume()
        await cluster.run(2.0)
        for replica in cluster.replicas[:-1]:
            await replica.die()
        cluster.collect()
        for path, raw in cluster.pods().items():
            if raw["metadata"]["name"] in cluster.held.silent:
                cluster.end_pod(path, "failed")
        for name in NAMES:
            cluster.apply(name)
        for _ in range(60):
            await cluster.run(5.0, 5.0)
            cluster.collect()  # a claim that was under way may have ended only now
            if cluster.state() == cluster.right() and cluster.leader.idle:
                break
        assert cluster.state() == cluster.right()
        assert cluster.leader.left_over() == []
        assert cluster.wrong == []
        for name in NAMES:
            assert cluster.leader.functions._memories[f"ns/{name}"].active


OperatorMachine.TestCase.settings = tries(20, steps=25)
TestOperatorAtRandom = OperatorMachine.TestCase
