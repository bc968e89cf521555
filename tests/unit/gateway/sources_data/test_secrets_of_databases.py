"""What a tenant's Secret may say: where the server is and who we are there, and nothing about the gateway's files."""

import pytest

from kappa_gateway.events.secrets import LATE_SECONDS, SourceSecrets
from kappa_gateway.events.source import SourceError
from kappa_gateway.events.sources import postgres_connect, redis_connect


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:hidden@db/shop?sslrootcert=/etc/passwd", "must not set sslrootcert"),
        ("postgresql://u:hidden@db/shop?passfile=/x&options=-cx", "must not set options, passfile"),
        ("postgresql://u:hidden@db/shop?service=x", "must not set service"),
        ("postgresql://u:hidden@db/shop?hostaddr=127.0.0.1", "must not set hostaddr"),
        ("postgresql://u:hidden@db/shop?sslkey=/var/run/key", "must not set sslkey"),
        ("postgresql:///shop?user=u", "must name a host"),
        ("postgresql:///shop?host=/var/run/postgresql", "must name a host"),
        ("host=db,/tmp password=hidden", "must name a host"),
        ("host=db,@abstract password=hidden", "must name a host"),
        ("host=db, password=hidden", "must name a host"),
        ("postgresql://u:hidden@db/shop?sslmode=maybe", "sslmode must be one of"),
        ("hidden hidden", "is not valid"),
        ("postgresql://u:hidden@db/shop?nothing=1", "is not valid"),
        ("", "has no key url"),
    ],
)
def test_urls_of_postgres_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        postgres_connect.read_secret({"url": url.encode()}, "s")
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_postgres_is_connected_with() -> None:
    server = postgres_connect.read_secret({"url": b"postgresql://u:p%40@a:1,b:2/shop?connect_timeout=3\n"}, "s")
    assert dict(server.parameters) == {
        "user": "u",
        "password": "p@",
        "dbname": "shop",
        "host": "a,b",
        "port": "1,2",
        "connect_timeout": "3",
        "sslmode": "prefer",
    }
    assert server.source == "postgresql://a:1/shop"
    assert "p@" not in repr(server)
    assert postgres_connect.read_secret({"url": b"host=a user=u", "ca.crt": b"x"}, "s").parameters["sslmode"] == (
        "verify-full"
    )
    with pytest.raises(SourceError, match=r"tls\.crt and tls\.key"):
        postgres_connect.read_secret({"url": b"host=a", "tls.crt": b"x"}, "s")
    with pytest.raises(SourceError, match="does not exist"):
        postgres_connect.read_secret(None, "s")


def test_a_secret_that_has_just_gone_is_there_for_clearing_up() -> None:
    now = [1000.0]
    secrets = SourceSecrets(lambda: now[0])
    secrets.put({"metadata": {"namespace": "n", "name": "s"}, "type": "kappa.dev/source", "data": {"url": "eA=="}})
    assert secrets.late("n/s") == {"url": b"x"}
    secrets.remove("n/s")
    assert (secrets.get("n/s"), secrets.late("n/s")) == (None, {"url": b"x"})
    now[0] += LATE_SECONDS
    assert secrets.late("n/s") is None
    assert secrets.late("n/other") is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden@db/0?ssl_ca_certs=/etc/passwd",
        "redis://:hidden@db/x",
        "redis://:hidden@db:x/0",
        "unix:///var/run/redis?password=hidden",
        "http://:hidden@db/0",
        "redis:///0",
        "",
    ],
)
def test_urls_of_redis_that_are_refused(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        redis_connect.read_secret({"url": url.encode()}, "s")
    assert "redis://user:password@host:6379/0" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_redis_is_connected_with() -> None:
    server = redis_connect.read_secret({"url": b"rediss://u:p%40@db:7000/3\n"}, "s")
    assert (server.host, server.port, server.database, server.user, server.password, server.tls) == (
        *("db", 7000, 3, "u", "p@"),
        True,
    )
    assert server.source == "redis://db:7000/3"
    assert "p@" not in repr(server)
    plain = redis_connect.read_secret({"url": b"redis://db"}, "s")
    assert (plain.port, plain.database, plain.user, plain.password, plain.tls) == (6379, 0, None, None, False)
    with pytest.raises(SourceError, match=r"tls\.crt and tls\.key"):
        redis_connect.read_secret({"url": b"rediss://db", "tls.key": b"x"}, "s")
    with pytest.raises(SourceError, match="does not exist"):
        redis_connect.read_secret(None, "s")
