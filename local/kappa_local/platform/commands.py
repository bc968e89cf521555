"""`python -m kappa_local up | down | demo`: what the Makefile's targets of the same names call."""

import argparse
import asyncio
import sys
from pathlib import Path

from kappa_local.demo.run import demo
from kappa_local.demo.screen import Screen
from kappa_local.platform.lifecycle import start, stop
from kappa_local.platform.settings import Place, SetupError, place

COMMANDS = {
    "up": "start Kappa on the embedded cluster and leave it running",
    "down": "stop what `up` started",
    "demo": "deploy, call and scale functions, and check every step",
}


def run(args: argparse.Namespace) -> int:
    """Runs one of COMMANDS; what stands in the way is said in one line on stderr, with exit status 1."""
    try:
        where = place()
        if args.command == "down":
            print("stopped" if stop(where) else "nothing was running")
            return 0
        if args.command == "demo":
            return asyncio.run(demo(where, Screen()))
        asyncio.run(start(where, print))
        _welcome(where)
    except SetupError as error:
        print(f"kappa: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _welcome(where: Place) -> None:
    print(
        f"""
Kappa is up.

  gateway   {where.gateway_url}
  NATS      nats://127.0.0.1:{where.nats_port}, MQTT on port {where.mqtt_port}
  kubectl   export KUBECONFIG={where.kubeconfig} PATH={Path(sys.executable).parent}:$PATH

Try:
  kubectl apply -f examples/hello/function.yaml
  kubectl wait --for=condition=Ready fn/hello
  curl {where.gateway_url}/fn/default/hello

`make down` stops it."""
    )
