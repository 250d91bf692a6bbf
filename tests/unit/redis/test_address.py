"""Redis URLs: all forms, errors, and passwords that stay hidden."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from tracker.redis.address import RedisAddress
from tracker.redis.endpoint import redis_endpoint
from tracker.redis.sentinel import SentinelEndpoint


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress(host="cache")),
        ("redis://cache/", RedisAddress(host="cache")),
        ("redis://cache:", RedisAddress(host="cache")),
        ("redis://cache:6380", RedisAddress(host="cache", port=6380)),
        ("redis://cache:65535/15", RedisAddress(host="cache", port=65_535, database=15)),
        ("redis://cache/0", RedisAddress(host="cache")),
        ("redis://cache/007", RedisAddress(host="cache", database=7)),
        ("REDIS://Cache.Example", RedisAddress(host="cache.example")),
        ("redis://192.0.2.7:6380", RedisAddress(host="192.0.2.7", port=6380)),
        ("redis://[2001:db8::7]", RedisAddress(host="2001:db8::7")),
        ("redis://[::1]:6380/2", RedisAddress(host="::1", port=6380, database=2)),
        ("redis://:s3cret@cache", RedisAddress(host="cache", password="s3cret")),
        (
            "redis://tracker:s3cret@cache:6380/3",
            RedisAddress(
                host="cache", port=6380, database=3, username="tracker", password="s3cret"
            ),
        ),
        (
            "redis://us%40er:p%2Fa%3As%23s%3F%25@cache",
            RedisAddress(host="cache", username="us@er", password="p/a:s#s?%"),
        ),
        ("redis://:a:b:c@cache", RedisAddress(host="cache", password="a:b:c")),
        ("redis://:a@b@cache", RedisAddress(host="cache", password="a@b")),
        ("redis://:p%C3%ABss@cache", RedisAddress(host="cache", password="pëss")),
        ("redis://:a+b@cache", RedisAddress(host="cache", password="a+b")),
        ("rediss://cache", RedisAddress(host="cache", tls=True)),
        (
            "rediss://tracker:s3cret@cache:6380/1?ca=/etc/ssl/redis.pem",
            RedisAddress(
                host="cache",
                port=6380,
                database=1,
                username="tracker",
                password="s3cret",
                tls=True,
                ca_file="/etc/ssl/redis.pem",
            ),
        ),
        (
            "rediss://cache?ca=%2Fetc%2Fmy%20ca.pem",
            RedisAddress(host="cache", tls=True, ca_file="/etc/my ca.pem"),
        ),
        ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", RedisAddress(path="/run/redis.sock", database=2)),
        ("unix:///run/my%20redis.sock", RedisAddress(path="/run/my redis.sock")),
        (
            "unix://:s3cret@/run/redis.sock",
            RedisAddress(path="/run/redis.sock", password="s3cret"),
        ),
        (
            "unix://tracker:s3cret@/run/redis.sock?db=1",
            RedisAddress(path="/run/redis.sock", database=1, username="tracker", password="s3cret"),
        ),
        (
            "redis+sentinel://s1/mymaster",
            RedisAddress(sentinels=(("s1", 26379),), master="mymaster"),
        ),
        (
            "redis+sentinel://s1:26380,[2001:db8::7],S3/my.master-1/2",
            RedisAddress(
                sentinels=(("s1", 26_380), ("2001:db8::7", 26_379), ("s3", 26_379)),
                master="my.master-1",
                database=2,
            ),
        ),
        (
            "rediss+sentinel://tracker:s3cret@s1,s2/main/?ca=/etc/ca.pem&sentinel_password=s+%26",
            RedisAddress(
                sentinels=(("s1", 26_379), ("s2", 26_379)),
                master="main",
                username="tracker",
                password="s3cret",
                tls=True,
                ca_file="/etc/ca.pem",
                sentinel_password="s+&",
            ),
        ),
    ],
)
def test_redis_url_is_parsed(url: str, address: RedisAddress) -> None:
    assert RedisAddress.from_url(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must begin with redis://, rediss://, unix:// or redis+sentinel://"),
        ("cache", "must begin with"),
        ("cache:6379", "must begin with"),
        ("http://cache", "must begin with"),
        ("tcp://cache:6379", "must begin with"),
        ("redis+tls://cache", "must begin with"),
        ("redis://cache:port", "the port or the host is not valid"),
        ("redis://cache:65536", "the port or the host is not valid"),
        ("redis://cache:-1", "the port or the host is not valid"),
        ("redis://cache:63:79", "the port or the host is not valid"),
        ("redis://[::1", "the port or the host is not valid"),
        ("redis://", "redis:// requires a host"),
        ("redis:///0", "redis:// requires a host"),
        ("redis://:6379", "redis:// requires a host"),
        ("redis://:s3cret@", "redis:// requires a host"),
        ("redis:cache", "redis:// requires a host"),
        ("rediss:///0", "rediss:// requires a host"),
        ("redis://tracker@cache", "user without a password"),
        ("unix://tracker@/run/redis.sock", "user without a password"),
        ("redis://cache/zero", "the database must be a number"),
        ("redis://cache/-1", "the database must be a number"),
        ("redis://cache/1.5", "the database must be a number"),
        ("redis://cache/0/1", "the database must be a number"),
        ("redis://cache/٣", "the database must be a number"),
        ("redis://cache/²", "the database must be a number"),
        ("unix:///run/redis.sock?db=x", "the database must be a number"),
        ("unix:///run/redis.sock?db=", "the database must be a number"),
        ("redis://cache?db=1", "no parameters allowed for redis://"),
        ("redis://cache?ca=/x", "no parameters allowed for redis://"),
        ("rediss://cache?db=1", "only ?ca=… allowed for rediss://"),
        ("rediss://cache?ca=/x&verify=no", "only ?ca=… allowed for rediss://"),
        ("unix:///run/redis.sock?ca=/x", "only ?db=… allowed for unix://"),
        ("unix:///run/redis.sock?DB=1", "only ?db=… allowed for unix://"),
        ("unix://", "unix:// requires an absolute path"),
        ("unix:///", "unix:// requires an absolute path"),
        ("unix://run/redis.sock", "unix:// requires an absolute path"),
        ("unix://localhost/run/redis.sock", "unix:// requires an absolute path"),
        ("unix:redis.sock", "unix:// requires an absolute path"),
        ("redis+sentinel:///main", "redis+sentinel:// requires a host"),
        ("redis+sentinel://s1,/main", "redis+sentinel:// requires a host"),
        ("redis+sentinel://s1,:26379/main", "redis+sentinel:// requires a host"),
        ("redis+sentinel://s1,s2:port/main", "the port or the host is not valid"),
        ("redis+sentinel://s1:0/main", "the port or the host is not valid"),
        ("redis+sentinel://s1", "requires the master's name (redis+sentinel://host/NAME)"),
        ("redis+sentinel://s1,s2//0", "the master's name"),
        ("redis+sentinel://s1/a%20b", "the master's name"),
        ("redis+sentinel://s1/main/zero", "the database must be a number"),
        ("redis+sentinel://s1/main/0/1", "the database must be a number"),
        ("redis+sentinel://tracker@s1/main", "user without a password"),
        (
            "redis+sentinel://s1/main?ca=/x",
            "only ?sentinel_password=… allowed for redis+sentinel://",
        ),
        ("rediss+sentinel://s1/main?db=1", "only ?ca=… and ?sentinel_password=… allowed"),
        ("redis://s1,s2", "the port or the host is not valid"),
    ],
)
def test_malformed_url_is_refused_with_one_line(url: str, message: str) -> None:
    with pytest.raises(ValueError, match="Redis URL: ") as raised:
        RedisAddress.from_url(url)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://tracker:s3cret@cache:port",
        "redis://tracker:s3cret@cache/zero",
        "redis://tracker:s3cret@cache?db=1",
        "redis://tracker:s3cret@",
        "redis://:s3[cret@cache",
        "http://tracker:s3cret@cache",
        "unix://tracker:s3cret@localhost/run/redis.sock",
        "unix://tracker:s3cret@/run/redis.sock?db=x",
        # A password that is not percent-encoded ends up in other parts of the URL.
        "redis://tracker:12/s3cret@cache/0",
        "redis://tracker:12?s3cret@cache/0",
        "redis://tracker:12#s3cret@cache/0",
        "redis://:12/s3cret@cache/0",
        "redis://:12?s3cret@cache/0",
        "redis://:ab/s3cret@cache/0",
        "redis://:ab?s3cret@cache/0",
        "redis://:ab#s3cret@cache/0",
        "unix://tracker:ab?s3cret@/run/redis.sock",
        "redis+sentinel://:s3cret@s1,s2",
        "redis+sentinel://:s3cret@s1,s2:port/main",
        "redis+sentinel://tracker:12/s3cret@s1/main",
        "redis+sentinel://tracker:12?s3cret@s1/main",
        "redis+sentinel://s1/main?sentinel_password=s3cret&db=1",
        "redis+sentinel://s1/main?sentinel_password=12#s3cret",
    ],
)
def test_error_about_a_malformed_url_hides_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL: ") as raised:
        RedisAddress.from_url(url)
    assert "s3" not in str(raised.value)
    assert "cret" not in str(raised.value)
    # A traceback does not show it either, through a chained exception.
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://cache", "redis://cache:6379/0"),
        ("redis://tracker:s3cret@cache:6380/3", "redis://cache:6380/3"),
        ("redis://:s3cret@[::1]", "redis://[::1]:6379/0"),
        ("rediss://:s3cret@cache/1?ca=/etc/ca.pem", "rediss://cache:6379/1"),
        ("unix://:s3cret@/run/redis.sock", "unix:///run/redis.sock"),
        ("unix://tracker:s3cret@/run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        (
            "redis+sentinel://:s3cret@s1,[::1]:5/main?sentinel_password=s3cret",
            "redis+sentinel://s1:26379,[::1]:5/main/0",
        ),
        ("rediss+sentinel://:s3cret@s1/main/3?ca=/x", "rediss+sentinel://s1:26379/main/3"),
    ],
)
def test_address_is_shown_as_a_url_without_password(url: str, text: str) -> None:
    address = RedisAddress.from_url(url)
    assert str(address) == text
    assert f"{address}" == text
    assert "s3cret" not in repr(address)
    assert "s3cret" not in repr([address])


passwords = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("Cs", "Cc")),
    min_size=6,
    max_size=30,
)


@given(passwords, st.sampled_from(["redis://{}@cache:6379/0", "unix://{}@/run/redis.sock"]))
def test_percent_encoded_password_is_decoded_and_hidden(password: str, form: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in password.encode())
    # Hypothesis tries words of our modules, and one such as "database" is part of every repr.
    assume(password not in repr(RedisAddress.from_url(form.format("tracker:"))))
    address = RedisAddress.from_url(form.format(f"tracker:{encoded}"))
    assert address.password == password
    for shown in (str(address), repr(address)):
        assert password not in shown
        assert encoded not in shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache:6380/3",
        "redis://[::1]:6379/0",
        "unix:///run/redis.sock?db=2",
        "redis+sentinel://s1:26379,[::1]:5/main/0",
    ],
)
def test_shown_address_without_password_parses_to_the_same_address(url: str) -> None:
    assert str(RedisAddress.from_url(url)) == url
    assert RedisAddress.from_url(str(RedisAddress.from_url(url))) == RedisAddress.from_url(url)


# Endpoints, built without connecting.


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://cache", HostnameEndpoint),
        ("redis://[::1]:6380", HostnameEndpoint),
        ("unix:///run/redis.sock", UNIXClientEndpoint),
        ("redis+sentinel://s1,s2/main", SentinelEndpoint),
        ("rediss+sentinel://s1,s2/main", SentinelEndpoint),
    ],
)
def test_scheme_of_the_url_selects_the_endpoint(url: str, kind: type) -> None:
    endpoint = redis_endpoint(cast("Any", MemoryReactorClock()), RedisAddress.from_url(url))
    assert isinstance(endpoint, kind)
    assert verifyObject(IStreamClientEndpoint, endpoint)


@pytest.mark.parametrize("url", ["rediss://cache.example", "rediss://127.0.0.1:6380"])
def test_endpoint_of_a_tls_url_uses_tls(url: str) -> None:
    endpoint = redis_endpoint(cast("Any", MemoryReactorClock()), RedisAddress.from_url(url))
    assert verifyObject(IStreamClientEndpoint, endpoint)
    assert not isinstance(endpoint, HostnameEndpoint)


@pytest.fixture(scope="module")
def authority() -> str:
    """Return a certificate in PEM form."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2024, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2044, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


@pytest.mark.parametrize("layout", ["{0}", "{0}{0}", "# Our own\n\n{0}\nand again\n{0}", "ë\n{0}"])
def test_ca_certificates_are_read_from_a_file(layout: str, authority: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(layout.format(authority), encoding="utf-8")
    endpoint = redis_endpoint(
        cast("Any", MemoryReactorClock()),
        RedisAddress.from_url(f"rediss://cache.example?ca={file}"),
    )
    assert verifyObject(IStreamClientEndpoint, endpoint)


@pytest.mark.parametrize("content", ["", "no certificate", "-----BEGIN PRIVATE KEY-----\n"])
def test_ca_file_without_certificates_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(content)
    address = RedisAddress.from_url(f"rediss://cache.example?ca={file}")
    with pytest.raises(ValueError, match=r"ca\.pem contains no certificate"):
        redis_endpoint(cast("Any", MemoryReactorClock()), address)


def test_damaged_ca_certificate_is_refused(authority: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    lines = authority.splitlines()
    file.write_text("\n".join([lines[0], lines[2], lines[-1]]))
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context(cafile=file)  # confirms that the certificate is damaged
    address = RedisAddress.from_url(f"rediss://cache.example?ca={file}")
    with pytest.raises(ValueError, match=r"ca\.pem"):
        redis_endpoint(cast("Any", MemoryReactorClock()), address)


@pytest.mark.parametrize("url", ["rediss://cache.example", "rediss+sentinel://s1,s2/main"])
def test_missing_ca_file_raises_oserror(url: str, tmp_path: Path) -> None:
    address = RedisAddress.from_url(f"{url}?ca={tmp_path}/none.pem")
    with pytest.raises(OSError, match=r"none\.pem"):
        redis_endpoint(cast("Any", MemoryReactorClock()), address)
