"""Schedules in the books of `make chaos-events`: many Triggers that fire once each, spread over the run.

A firing counts as handed in and accepted at its time, by the clock: nobody is there who could repeat it. So a firing
that does not come is lost, and a second one is a duplicate; its latency is from its time to the success.
"""

import datetime

from chaos_pods import eventually
from kappa_fixtures_local import Api
from proof_feed import Json, Retrying
from proof_ledger import Ledger, identity

from kappa_api import names

SOURCE = "schedule"
#: The first firing is so long after the Triggers are there.
LEAD_SECONDS = 3.0
READY_SECONDS = 60.0
TRIGGERS = f"/apis/{names.API_VERSION}/namespaces/{{ns}}/{names.TRIGGER_PLURAL}"


def once(ident: str, at: int, function: str, retrying: Retrying) -> Json:
    """A Trigger that fires once. `at`: epoch seconds."""
    text = datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    source = {SOURCE: {"at": text, "data": {"id": ident}}}
    kind = {"apiVersion": names.API_VERSION, "kind": names.TRIGGER_KIND}
    spec = {"function": function, "source": source, **retrying.spec()}
    return kind | {"metadata": {"name": ident}, "spec": spec}


def times(count: int, begin: float, seconds: float) -> list[int]:
    """Whole epoch seconds, evenly spread."""
    return [int(begin + number * seconds / count) + 1 for number in range(count)]


async def plan(api: Api, ledger: Ledger, at: list[int], function: str, retrying: Retrying) -> None:
    """Makes them all, and enters them."""
    for number, moment in enumerate(at):
        ident = identity(SOURCE, number)
        ledger.send(ident, float(moment))
        ledger.accept(ident, float(moment))
        (await api.post(TRIGGERS, once(ident, moment, function, retrying))).ok()
    last = identity(SOURCE, len(at) - 1)

    async def seen() -> bool:
        status = (await api.get(f"{TRIGGERS}/{last}")).ok().get("status") or {}
        return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())

    await eventually(seen, READY_SECONDS, "the last schedule Ready")
