"""Runs the demo: starts the platform, plays the steps, stops everything, and says in one line how it went."""

import time

import aiohttp

from kappa_local.demo.screen import Screen
from kappa_local.demo.script import STEPS
from kappa_local.demo.steps import Stage, StepError
from kappa_local.platform.lifecycle import PARTS, start, stop
from kappa_local.platform.settings import Place

LOG_LINES = 25


async def demo(where: Place, screen: Screen) -> int:
    """Plays all steps; the exit status is 0 only if every one was right. Raises SetupError before the first step."""
    begun = time.monotonic()
    screen.heading("Start Kappa on the embedded cluster")
    kubectl = await start(where, screen.right)
    try:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            stage = Stage(kubectl, session, screen, where.gateway_url)
            for title, step in STEPS:
                screen.heading(title)
                try:
                    screen.right(await step(stage))
                except StepError as error:
                    screen.wrong(str(error))
                    for component in PARTS:
                        answer = await kubectl.run(["-n", "kappa-system", "logs", component, f"--tail={LOG_LINES}"])
                        screen.output(f"--- last lines of {component}\n{answer.text}")
                    return 1
    finally:
        stop(where)
    screen.heading(f"All {len(STEPS)} steps were right, in {time.monotonic() - begun:.0f} s; nothing is left running.")
    screen.output("Next: `make up` leaves it running for you; README.md goes on from there.")
    return 0
