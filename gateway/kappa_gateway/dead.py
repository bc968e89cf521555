"""Dead letters for people: `kubectl exec deploy/kappa-gateway -- python -m kappa_gateway.dead list|show|replay|purge`.

Asks the admin port of the gateway that it runs beside, with the token that follows from its platform secret.
"""

import argparse
import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from kappa_api import names
from kappa_api.keyring import KeyringError, read_secret
from kappa_api.tokens import internal_token

Json = Any
SECONDS: Final = 60.0
_COLUMNS: Final = ("SEQ", "KIND", "OF", "CAUSE", "ATTEMPTS", "DIED", "ERROR")


class Failure(Exception):  # noqa: N818  (what a person reads, and no error of the program)
    """What to tell whoever asked."""


def main(arguments: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.run(options, env)
    except Failure as failure:
        print(f"kappa_gateway.dead: {failure}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kappa_gateway.dead", description="Kappa's dead letters")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    listing = command("list", _list, "show what there is, a line each")
    _place(listing)
    listing.add_argument("--limit", type=int, default=100, help="at most so many (default 100)")
    listing.add_argument("--after", type=int, default=0, help="only those with greater numbers")
    listing.add_argument("-o", "--output", choices=("table", "json"), default="table")
    showing = command("show", _show, "show one, with the original")
    showing.add_argument("seq", type=int)
    replay = command("replay", _replay, "send them again as new work")
    _chosen(replay)
    replay.add_argument("--function", default="", help="to this Function of the namespace instead")
    replay.add_argument("--revision", default="", help="only if the Function runs this revision")
    _chosen(command("purge", _purge, "throw them away"))
    return parser


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", "--kind", choices=("async", "trigger", "outcome"), default="")
    parser.add_argument("-n", "--namespace", default="")
    parser.add_argument("--name", default="", help="of the Function or the Trigger; of an outcome, whose it is")


def _chosen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("seqs", type=int, nargs="*", metavar="SEQ")
    parser.add_argument("--all", action="store_true", help="all of --kind, --namespace and --name, or of everything")
    _place(parser)


def _list(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    found = _ask(env, "GET", _with(names.PATH_DEAD, options, limit=options.limit, after=options.after))
    if options.output == "json":
        print(json.dumps(found, indent=2))
        return
    rows = [_COLUMNS, *(_row(letter) for letter in found["letters"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if found["next"]:
        print(f"there may be more: --after {found['next']}", file=sys.stderr)


def _row(letter: Json) -> tuple[str, ...]:
    died = datetime.fromtimestamp(letter["deadMs"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    error = letter["error"]
    message = " ".join(f"{error.get('type', '')}: {error.get('message', '')}".split())
    of = f"{letter['namespace']}/{letter['name']}"
    return str(letter["seq"]), letter["kind"], of, letter["cause"], str(letter["attempts"]), died, message[:80]


def _show(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    print(json.dumps(_ask(env, "GET", f"{names.PATH_DEAD}/{options.seq}"), indent=2))


def _replay(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    asked = {key: getattr(options, key) for key in ("seqs", "all", "kind", "namespace", "name", "function", "revision")}
    body = {key: value for key, value in asked.items() if value}
    print(f"replayed {_ask(env, 'POST', f'{names.PATH_DEAD}/replay', body)['replayed']}")


def _purge(options: argparse.Namespace, env: Mapping[str, str]) -> None:
    chosen = {"all": "true" if options.all else "", "seqs": ",".join(map(str, options.seqs))}
    path = _with(names.PATH_DEAD, options, **chosen)
    print(f"purged {_ask(env, 'DELETE', path)['purged']}")


def _with(path: str, options: argparse.Namespace, **more: str | int) -> str:
    """`path` with a query of everything that was said."""
    place = {key: getattr(options, key) for key in ("kind", "namespace", "name")}
    query = {key: value for key, value in (place | more).items() if value}
    return f"{path}?{urlencode(query, safe=',')}" if query else path


def _ask(env: Mapping[str, str], method: str, path: str, body: Json = None) -> Json:
    """Raises Failure."""
    try:
        secret, _ = read_secret(env)
    except KeyringError as error:
        raise Failure(f"run it inside a gateway's pod: {error}") from error
    bound = env.get(names.ENV_BIND, "")
    host = bound if bound not in ("", "0.0.0.0", "::") else "127.0.0.1"
    connection = http.client.HTTPConnection(host, int(env.get(names.ENV_ADMIN_PORT) or 8081), timeout=SECONDS)
    headers = {"authorization": f"Bearer {internal_token(secret)}", "content-type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body).encode() if body is not None else None, headers)
        response = connection.getresponse()
        found = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failure(f"the gateway's admin port does not answer: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise Failure(found.get("error", {}).get("message", f"status {response.status}"))
    return found


if __name__ == "__main__":
    sys.exit(main())
