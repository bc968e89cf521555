"""Posting an outcome to a URL that the author of a Function or of a Trigger chose.

Each attempt is guarded against becoming a way into what only the gateway reaches (see `auth/fetch.py`): names are
resolved and judged anew, the judged address is connected to, redirects are not followed, nothing of the answer is kept.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from kappa_api.cloudevents import MEDIA_TYPE
from kappa_gateway.auth.fetch import FetchError, GuardedResolver, host_problem, plain
from kappa_gateway.events.outcomes.address import place_of
from kappa_gateway.events.outcomes.rules import Answer, answered, seconds_of, unanswered

POST_SECONDS: Final = 10.0
#: Under way at one gateway. Beyond `rules.MOST_EACH`, so that it takes many slow owners to keep others waiting.
MOST: Final = 128
_HEADERS: Final = {"content-type": MEDIA_TYPE}


class Poster:
    """`loopback`: see `EventSettings.allow_loopback`. `gate`: to be held while posting."""

    def __init__(self, *, loopback: bool, wall: Callable[[], float] = time.time) -> None:
        self._loopback, self._wall = loopback, wall
        self._session: aiohttp.ClientSession | None = None
        self.gate = asyncio.Semaphore(MOST)

    async def post(self, url: str, body: bytes) -> Answer:
        """One attempt. Raises nothing but cancellation."""
        place = place_of(url)
        if problem := host_problem(url, loopback=self._loopback):
            return unanswered("forbidden_address", f"{place} is {problem}")
        try:
            async with self._opened().post(url, data=body, headers=_HEADERS, allow_redirects=False) as reply:
                wished = seconds_of(reply.headers.get("retry-after", ""), self._wall())
                return answered(reply.status, place, wished)
        except FetchError as error:  # of the resolver
            return unanswered("forbidden_address", str(error))
        except TimeoutError:
            return unanswered("timeout", f"{place} did not answer within {POST_SECONDS:g} s")
        except (aiohttp.ClientConnectionError, OSError) as error:  # a bad certificate is a ValueError as well
            return unanswered("unreachable", f"{place}: {plain(error)}")
        except ValueError:  # aiohttp.InvalidURL is one, too
            return unanswered("bad_url", f"the URL at {place} is not valid")
        except Exception as error:  # whatever a receiver can make an HTTP client stumble over
            return unanswered("unreachable", f"{place}: {plain(error)}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver: AbstractResolver = GuardedResolver(loopback=self._loopback)
            connector = aiohttp.TCPConnector(resolver=resolver, limit=0, force_close=True)
            timeout = aiohttp.ClientTimeout(total=POST_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session
