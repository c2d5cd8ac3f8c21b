"""The network people have: proxies, certificates, odd host names, outages and busy sites."""
import contextlib
import io
import ssl
import subprocess
import threading
import time
import zipfile

import pytest

from dataset_preparation.parsing import connections
from dataset_preparation.parsing.addresses import clean_address
from dataset_preparation.parsing.browser import BrowserChoice
from dataset_preparation.parsing.connections import (
    BUSY_WAIT,
    Busy,
    Lost,
    NetworkAccess,
    Offline,
    build_network_access,
)
from dataset_preparation.parsing.host_schedule import HostLimits, HostSchedule
from dataset_preparation.parsing.safe_download import (
    LONGEST_WAIT,
    Failed,
    Limits,
    Patience,
    Refused,
    guarded_web,
    pause_after,
    retry,
    trusting_web,
)
from dataset_preparation.parsing.sources import SourceStopped
from dataset_preparation.parsing.yandex_window import Pace, Window
from tests.collecting_runs import SCRIPT, arguments, flora, yandex_arguments
from tests.collecting_server import jpeg
from tests.conftest import run_script
from tests.proxy import Proxy
from utils import InputError

LIMITS = Limits(5, 5, 20, 1_000_000)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE",
             "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No proxy and no certificates but those that a test sets; what is said once is said anew."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    connections.warn_of_proxy.cache_clear()
    monkeypatch.setattr(Patience, "asked", False)


@pytest.fixture
def proxy(server):
    with Proxy(server.server.server_address) as running:
        yield running


def web(proxy="environment", **more):
    return guarded_web(LIMITS, network=NetworkAccess(proxy, **more))


# ---- proxies ----

def test_the_proxy_of_the_environment_is_used_and_said_once(proxy, monkeypatch, capsys):
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//anna:secret@"))
    for name in ("a", "b"):
        assert web().fetch(f"http://photos.invalid/photo/{name}.jpg") == jpeg(f"/photo/{name}.jpg")
    assert proxy.asked == [("GET", f"http://photos.invalid/photo/{name}.jpg") for name in "ab"]
    printed = capsys.readouterr().err
    assert printed.count("proxy") == 2 and printed.count("\n") == 1  # one line, with the remedy
    assert proxy.url in printed and "secret" not in printed


def test_the_proxy_setting_wins_and_none_connects_directly(proxy, server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    address = "http://photos.invalid/photo/a.jpg"
    for fetch in (web(proxy.url).fetch, trusting_web(LIMITS, NetworkAccess(proxy.url)).fetch):
        assert fetch(address) == jpeg("/photo/a.jpg")
    for fetch in (web("none").fetch, trusting_web(LIMITS, NetworkAccess("none")).fetch):
        with pytest.raises(Offline, match="no such host"):
            fetch(address)
    local = guarded_web(LIMITS, ("127.0.0.1",), network=NetworkAccess(proxy.url))
    assert local.fetch(server.photo("b"))
    assert len(proxy.asked) == 2  # the last one is in NO_PROXY


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "169.254.169.254",
                                  "localhost", "router.local", "[::ffff:10.0.0.1]"])
def test_private_addresses_are_not_even_asked_of_a_proxy(proxy, server, host):
    server.world.pages["/there"] = (302, {"Location": f"http://{host}/photo/a.jpg"}, b"")
    for address in (f"http://{host}/photo/a.jpg", "http://photos.invalid/there"):
        with pytest.raises(Refused, match="not a public address"):
            web(proxy.url).fetch(address)
    assert {address for _, address in proxy.asked} <= {"http://photos.invalid/there"}


def test_a_dripping_response_through_a_proxy_ends_in_time(proxy, server):
    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"x")
                time.sleep(0.2)
    server.server.RequestHandlerClass.do_GET = drip
    started = time.monotonic()
    with pytest.raises(Failed, match="longer than 1 s"):
        guarded_web(LIMITS._replace(total_seconds=1), network=NetworkAccess(proxy.url)).fetch(
            "http://photos.invalid/a")
    assert time.monotonic() - started < 5


def test_a_proxy_that_wants_a_password_is_no_final_answer(server, proxy):
    server.world.pages["/photo/a.jpg"] = (407, {}, b"")
    with pytest.raises(Failed, match="HTTP 407"):
        web(proxy.url).fetch("http://photos.invalid/photo/a.jpg")
    with pytest.raises(Offline, match="no connection to the proxy"):
        web("http://127.0.0.1:9").fetch("http://photos.invalid/photo/a.jpg")


def test_collecting_and_download_files_go_through_the_proxy(server, proxy, tmp_path, monkeypatch):
    flora(server, tmp_path, count=2)
    for record in server.world.observations:
        for photo in record["photos"]:
            photo["url"] = photo["url"].replace(server.url, "http://photos.invalid")
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    command = arguments(server, tmp_path, "--source", "inaturalist", "--inaturalist_url",
                        "http://api.invalid/inat", "--patience_minutes", 0)
    done = run_script(SCRIPT, *command)
    assert "collected 6 photographs" in done.stdout.splitlines()[-1]
    assert done.stderr.count(proxy.url) == 1
    assert {address.split("/")[2] for _, address in proxy.asked} == {"api.invalid",
                                                                     "photos.invalid"}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for side in ("train", "test"):
            archive.writestr(f"{side}_labels.csv", "path,label\n")
    server.world.pages["/set.zip"] = (200, {}, packed.getvalue())
    monkeypatch.delenv("HTTP_PROXY")
    run_script("download_files.py", "--dataset_url", "http://archives.invalid/set.zip",
               "--checkpoint_url", "", "--dataset_dir", tmp_path / "set", "--checkpoints_dir",
               tmp_path / "checkpoints", "--proxy", proxy.url)
    assert (tmp_path / "set/train_labels.csv").exists()


# ---- certificates ----

@pytest.fixture
def secure(server, tmp_path):
    """The file of a certificate of photos.invalid, which the server now has; its proxy."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=photos.invalid", "-addext", "subjectAltName=DNS:photos.invalid",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
    with Proxy(server.server.server_address) as running:
        yield certificate, running


@pytest.mark.parametrize("variable", ["CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
                                      "SSL_CERT_FILE"])
def test_the_certificates_of_a_setting_or_of_the_environment_are_trusted(
        secure, monkeypatch, variable):
    certificate, proxy = secure
    address = "https://photos.invalid/photo/a.jpg"
    for fetch in (web(proxy.url).fetch, trusting_web(LIMITS, NetworkAccess(proxy.url)).fetch):
        with pytest.raises(Failed, match="untrusted certificate.*--ca_bundle"):
            fetch(address)
    bundle = str(certificate) if variable == "CA_BUNDLE" else ""
    if not bundle:
        monkeypatch.setenv(variable, str(certificate))
    network = build_network_access(Settings(ca_bundle=bundle, proxy=proxy.url))
    for fetch in (guarded_web(LIMITS, network=network).fetch, trusting_web(LIMITS, network).fetch):
        assert fetch(address) == jpeg("/photo/a.jpg")
    assert proxy.asked[-1] == ("CONNECT", "photos.invalid:443")


@pytest.mark.browser
def test_a_browser_trusts_what_the_system_trusts_and_says_so(secure):
    _, proxy = secure
    browser = BrowserChoice("chromium", ("--no-sandbox", "--disable-dev-shm-usage"),
                            proxies=NetworkAccess(proxy.url).proxies("https://photos.invalid"))
    window = Window(browser, ("https://photos.invalid/images/search",), Pace((0, 0), 10, 0))
    try:
        with pytest.raises(SourceStopped, match="certificate .*--ca_bundle.* certutil"):
            window.load({"text": "Rosa canina"})
    finally:
        window.close()


def test_a_proxy_with_a_password_is_refused_for_the_browser_before_it_starts(server, tmp_path):
    command = yandex_arguments(server, tmp_path, "--proxy", "http://anna:secret@127.0.0.1:9")
    done = run_script(SCRIPT, *command, status=1)
    assert "name and password of a proxy" in done.stderr and "--source" in done.stderr
    assert "secret" not in done.stderr and not (tmp_path / "collected").exists()


class Settings:
    """The settings of the network."""

    def __init__(self, **changes):
        self.__dict__.update({"proxy": "environment", "ca_bundle": "", "patience_minutes": 0.0,
                              "busy_seconds": 60.0,
                              **changes})


def test_missing_certificates_are_named_before_the_first_request(monkeypatch):
    with pytest.raises(InputError, match="CA_BUNDLE names /none"):
        build_network_access(Settings(ca_bundle="/none"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/none")
    with pytest.raises(InputError, match="REQUESTS_CA_BUNDLE names /none"):
        build_network_access(Settings())


# ---- host names ----

@pytest.mark.parametrize(("address", "clean"), [
    ("http://пример.рф/1.jpg", "http://xn--e1afmkfd.xn--p1ai/1.jpg"),
    ("http://ПРИМЕР.рф:8080/ü?x=%D0", "http://xn--e1afmkfd.xn--p1ai:8080/%C3%BC?x=%D0"),
    ("//u:p@bücher.example/%25", "https://u:p@xn--bcher-kva.example/%25"),
    ("http://%D0%BF%D1%80%D0%B8%D0%BC%D0%B5%D1%80.%D1%80%D1%84/1",
     "http://xn--e1afmkfd.xn--p1ai/1"),
    ("http://faß.de/", "http://xn--fa-hia.de/"), ("http://💩.la/", "http://xn--ls8h.la/"),
    ("http://my_host.example/A", "http://my_host.example/A"),
    ("http://xn--e1afmkfd.xn--p1ai/1", "http://xn--e1afmkfd.xn--p1ai/1")])
def test_internationalised_host_names_have_one_ascii_form(address, clean):
    assert clean_address(address) == clean


def test_a_cyrillic_host_name_is_requested_in_its_ascii_form(proxy, server):
    server.world.pages["/there"] = (302, {"Location": "http://пример.рф/photo/a.jpg"
                                          .encode().decode("latin-1")}, b"")
    for address in ("http://photos.invalid/there", "http://пример.рф/photo/a.jpg"):
        assert web(proxy.url).fetch(address) == jpeg("/photo/a.jpg")
    assert proxy.asked[1:] == [("GET", "http://xn--e1afmkfd.xn--p1ai/photo/a.jpg")] * 2


# ---- responses of real servers ----

def test_unusual_but_valid_responses_are_accepted(server):
    photo = jpeg("early")
    local = guarded_web(LIMITS, ("127.0.0.1",))

    def respond(handler):
        handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" * 2
                            + b"HTTP/1.1 203 Changed\r\nContent-Encoding: none\r\nContent-Length: "
                            + str(len(photo)).encode() + b"\r\n\r\n" + photo)
    server.server.RequestHandlerClass.do_GET = respond
    assert local.fetch(f"{server.url}/a") == local.fetch(f"{server.url}/b") == photo


def test_a_site_that_redirects_until_it_sees_its_cookie_is_satisfied(server):
    handler = server.server.RequestHandlerClass
    respond, seen = handler.do_GET, []

    def ask_for_cookie(self):
        seen.append(self.headers.get("Cookie"))
        if self.headers.get("Cookie") == "seen=1":
            return respond(self)
        return self.send(302, {"Location": self.path, "Set-Cookie": "seen=1; Path=/"}, b"")
    handler.do_GET = ask_for_cookie
    local = guarded_web(LIMITS, ("127.0.0.1", "localhost"))
    assert local.fetch(server.photo("a"))
    assert local.fetch(server.photo("b"))
    assert seen == [None, "seen=1", "seen=1"]  # kept for later requests of this host ...
    assert local.fetch(server.photo("c").replace("127.0.0.1", "localhost"))
    assert seen[3:] == [None, "seen=1"]  # ... and not for another one


# ---- busy sites and outages ----

def test_a_busy_site_is_left_alone_for_a_minute_then_two(server):
    local = guarded_web(LIMITS, ("127.0.0.1",))
    server.world.pages["/a"] = (429, {}, b"")
    with pytest.raises(Busy) as raised:
        local.fetch(f"{server.url}/a")
    pauses = [pause_after(raised.value, attempt) for attempt in (1, 2, 3, 4, 9)]
    assert pauses == [BUSY_WAIT, 2 * BUSY_WAIT, 4 * BUSY_WAIT, LONGEST_WAIT, LONGEST_WAIT]
    server.world.pages["/a"] = (429, {"Retry-After": "7"}, b"")
    with pytest.raises(Failed) as raised:
        local.fetch(f"{server.url}/a")
    assert pause_after(raised.value, 1) == 7


@pytest.mark.parametrize("error", [Busy("HTTP 429"), Offline("connection refused")])
def test_patience_lasts_longer_than_attempts_but_not_for_ever(error, capsys):
    patience, made, started = Patience(1.5), [], time.monotonic()

    def action():
        made.append(time.monotonic() - started)
        if made[-1] < 1.2:
            raise error
        return "sound"
    assert retry(action, 1, patience=patience) == "sound"
    assert patience.left == 1.5  # the next outage is waited out like this one
    made.clear()
    started = time.monotonic() + 1000
    for _ in range(2):  # the second search does not wait for the same outage once more
        with pytest.raises(type(error)):
            retry(action, 1, patience=patience)
    assert time.monotonic() - started + 1000 < 4
    assert capsys.readouterr().err.count("online?") == isinstance(error, Offline)


def test_a_redirect_to_nowhere_is_no_outage_of_the_host_that_redirects(server):
    server.world.pages["/a"] = (302, {"Location": "http://no-such-host.invalid/"}, b"")
    with pytest.raises(Failed, match="no such host") as raised:
        guarded_web(LIMITS, ("127.0.0.1",)).fetch(f"{server.url}/a")
    assert not isinstance(raised.value, Offline)


def test_patience_says_why_it_waits_and_until_when(capsys):
    patience = Patience(2.5)
    patience.wait(Busy("HTTP 429"))
    line, = capsys.readouterr().err.splitlines()
    assert "HTTP 429; next attempt at" in line and "given up at" in line
    patience = Patience(2.5)
    while patience.wait(Offline("no such host")):
        pass
    assert "no such host (is this machine online?); next attempt" in capsys.readouterr().err


def test_an_outage_costs_no_address_of_a_host_that_has_responded():
    changed = threading.Condition()
    schedule = HostSchedule(HostLimits(2, 0.0, 1, patience=60), changed)
    with changed:
        schedule.put("http://a.example/1")
        assert schedule.finish(schedule.take()[0], Offline("no such host"))  # never seen
        schedule.put("http://b.example/1")
        assert schedule.finish(schedule.take()[0], Refused("HTTP 404"))
        schedule.put("http://b.example/2")
        for _ in range(3):
            host = schedule.hosts["b.example"]
            host.paused_until = 0.0
            assert not schedule.finish(schedule.take()[0], Offline("connection refused"))
        assert host.paused_until > time.monotonic() + 2  # after 1, 2, 4 seconds
        host.paused_until = 0.0
        # it can be reached, but hangs up on this address
        assert schedule.finish(schedule.take()[0], Lost("connection lost"))


@pytest.mark.slow
def test_a_minute_of_http_429_is_waited_out(server, tmp_path):
    names = [f"Planta nomen{letter}" for letter in "abcdefghij"]
    flora(server, tmp_path, names, count=1)
    handler = server.server.RequestHandlerClass
    respond, started = handler.do_GET, time.monotonic()

    def busy_first(self):
        if time.monotonic() - started < 60 and self.path.startswith("/inat"):
            with server.lock:
                server.log.append((time.time(), self.path))
            return self.send(429, {}, b"")
        return respond(self)
    handler.do_GET = busy_first
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"))
    assert "collected 10 photographs" in done.stdout.splitlines()[-1]
    assert len(server.requested("/inat")) <= 23
    assert "HTTP 429; next attempt" in done.stderr
