"""The downloader's rules: public addresses, no downgrade, Retry-After, reasons, retries."""
import contextlib
import socket
import time

import pytest
from requests.adapters import HTTPAdapter

from dataset_preparation.parsing.connections import is_public
from dataset_preparation.parsing.safe_download import (
    LONGEST_WAIT,
    Failed,
    HostUnavailable,
    Limits,
    Refused,
    guarded_web,
    pause_after,
    retry,
    retry_after,
    trusting_web,
)
from tests.collecting_server import jpeg

LIMITS = Limits(5, 5, 20, 1_000_000)


@pytest.mark.parametrize(("address", "public"), [
    ("8.8.8.8", True), ("127.0.0.1", False), ("10.1.2.3", False), ("169.254.169.254", False),
    ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
    ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:127.0.0.1", False),
    ("64:ff9b::7f00:1", False), ("64:ff9b::808:808", True), ("2002:7f00:1::", False),
    ("2606:4700:4700::1111", True)])
def test_only_addresses_of_the_public_internet_are_public(address, public):
    assert is_public(address) == public


def test_a_host_name_is_resolved_once(server, monkeypatch):
    """A second look-up could give a private address: DNS rebinding."""
    names, resolve = [], socket.getaddrinfo

    def count(name, *args, **kwargs):
        names.append(name)
        return resolve(name, *args, **kwargs)
    monkeypatch.setattr(socket, "getaddrinfo", count)
    web = guarded_web(LIMITS, private_hosts=("localhost",))
    assert web.fetch(server.photo("a").replace("127.0.0.1", "localhost"))
    assert names.count("localhost") == 1


class OverHttp(HTTPAdapter):
    """Sends requests for https addresses over http: a server of the tests has no certificate."""

    def send(self, request, *args, **kwargs):
        request.url = request.url.replace("https:", "http:", 1)
        return super().send(request, *args, **kwargs)


def webs():
    """Return a `Web` of each kind that may ask the server."""
    return [guarded_web(LIMITS, private_hosts=("127.0.0.1",)), trusting_web(LIMITS)]


@pytest.mark.parametrize("web", webs(), ids=["guarded", "trusting"])
def test_a_redirect_from_https_to_http_is_refused(server, web, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    web.session.mount("https://", OverHttp())
    secure, host = server.url.replace("http:", "https:"), server.url.removeprefix("http:")
    for path, target in (("/down", f"http:{host}/photo/a.jpg"), ("/same", f"{host}/photo/b.jpg"),
                         ("/again", "/down")):
        server.world.pages[path] = (302, {"Location": target}, b"")
    assert web.fetch(f"{secure}/same") == jpeg("/photo/b.jpg")
    for path in ("/down", "/again"):
        with pytest.raises(Refused, match="https to http"):
            web.fetch(secure + path)
    assert server.requested("/photo") == ["/photo/b.jpg"]
    assert web.fetch(f"{server.url}/down") == jpeg("/photo/a.jpg")  # http to http


@pytest.mark.parametrize("address", ["", "dataset.zip", "ftp://127.0.0.1/x", "file:///etc/passwd",
                                     "http://", "http://[", "https://127.0.0.1:99999/x"])
def test_an_address_that_is_none_is_refused(address):
    for web in webs():
        with pytest.raises(Refused):
            web.fetch(address)


def test_retry_after_is_seconds_or_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert retry_after({"Retry-After": "7"}) == 7
    assert 90 < retry_after({"Retry-After": date}) <= 100
    for value in ("", "soon", "²", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert retry_after({"Retry-After": value}) == 0
    by_its_clock = {"Retry-After": "Wed, 21 Oct 2015 07:28:40 GMT",
                    "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after(by_its_clock) == 40  # whatever the clock of this machine says
    assert retry_after({}) == 0


def test_pauses_grow_and_are_at_least_what_the_host_asks_for():
    assert [pause_after(Failed("x"), attempt) for attempt in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert pause_after(Failed("x"), 99) == LONGEST_WAIT
    assert pause_after(Failed("x", 7), 2) == 7


@pytest.mark.parametrize(("error", "calls"), [
    (Failed("busy"), 2), (HostUnavailable("closed"), 1), (Refused("no"), 1)])
def test_only_what_may_pass_is_retried(error, calls):
    made, notices = [], []

    def action():
        made.append(1)
        raise error
    with contextlib.suppress(type(error)):
        retry(action, 2, notices.append)
    assert len(made) == calls
    assert len(notices) == calls - 1


def test_reasons_do_not_depend_on_the_address(server):
    server.server.RequestHandlerClass.do_GET = lambda self: self.connection.shutdown(
        socket.SHUT_RDWR)
    with pytest.raises(Failed, match="connection lost"):
        webs()[0].fetch(f"{server.url}/SSL_refused_timed_out_proxy.jpg")
