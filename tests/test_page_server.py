"""The page server: tokens, refusals, many users at once, slow and broken senders."""
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import ROOT
from utils import InputError
from web import body_memory, page_server
from web.page_server import Handler, PageServer, Reply, json_reply, page


def complain(request):
    raise InputError("no such plant")


ROUTES = {("GET", "/"): lambda request: Reply(b"<p>hello"),
          ("GET", "/photo"): lambda request: Reply(b"pixels", "image/jpeg", keep_seconds=60),
          ("POST", "/say"): lambda request: json_reply(
              {"size": len(request.body), **request.query}),
          ("POST", "/complain"): complain, ("POST", "/fail"): lambda request: 1 / 0}


@contextmanager
def running(**options):
    """Yield (server, its address without the token) of a server that answers."""
    with PageServer(ROUTES, **options) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_token_is_required_once_and_then_the_cookie():
    with running() as (server, base), requests.Session() as browser:
        assert server.server_address[0] == "127.0.0.1"
        assert browser.get(base).status_code == 403
        for token in ("wrong", "ü"):
            assert browser.get(f"{base}/?token={token}").status_code == 403
        first = browser.get(server.url)
        assert (first.status_code, first.text) == (200, "<p>hello")
        assert "HttpOnly; SameSite=Strict" in first.headers["Set-Cookie"]
        assert first.headers["Cache-Control"] == "no-store"
        assert first.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in first.headers["Content-Security-Policy"]
        assert browser.get(base + "/photo").headers["Cache-Control"] == "private, max-age=60"
        echo = browser.post(base + "/say?a=b&a=%2F&c", data=b"x" * 1000).json()
        assert echo == {"size": 1000, "a": "/", "c": ""}
        with running() as (other, _):
            assert other.token != server.token


def test_a_word_of_the_owner_makes_a_short_address_that_stays():
    with running(link="gentian") as (server, base), requests.Session() as browser:
        assert server.url == f"{base}/gentian"
        for path in ("", "/", "/gentiam", "/gentian/", "/?token=gentia"):
            assert browser.get(base + path).status_code == 403
        assert browser.get(server.url).text == "<p>hello"
        assert browser.get(base + "/photo").ok and browser.get(base).ok
    with pytest.raises(InputError, match="choose another word"):
        PageServer(ROUTES, link="photo")


def test_other_sites_and_names_are_refused():
    with running(token=False) as (server, base):
        assert requests.post(base + "/say", data=b"", headers={"Origin": base}).ok
        assert requests.get(base, headers={"Host": f"localhost:{server.server_port}"}).ok
        assert requests.get(base, headers={"Host": "192.168.1.7:8000"}).ok  # as from a phone
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"},
                        {"Origin": "http://127.0.0.1:1"},
                        {"Host": f"evil.example:{server.server_port}"},
                        {"Host": "127.0.0.1.evil.example"}):
            reply = requests.post(base + "/say", data=b"", headers=headers)
            assert reply.status_code == 403, headers


def test_addresses_sizes_and_failures_have_their_status(capsys):
    with (running(token=False, max_body=1000, large={"/complain": 2000}) as (_, base),
          requests.Session() as browser):
        assert browser.get(base + "/photo/../../config.py").status_code == 404
        assert browser.get(base + "/say").status_code == browser.post(base + "/").status_code == 404
        assert browser.post(base + "/say", data=b"x" * 1001).status_code == 413
        assert browser.post(base + "/complain", data=b"x" * 2000).status_code == 400
        # sent whole before the reply is read
        assert browser.post(base + "/say", data=b"x" * 5_000_000).status_code == 413
        assert browser.post(base + "/say", data=iter([b"chunked"])).status_code == 411
        assert browser.post(base + "/say", headers={"Content-Length": "-1"}).status_code == 411
        refused = browser.post(base + "/complain")
        assert (refused.status_code, refused.text) == (400, "no such plant")
        assert browser.post(base + "/fail").status_code == 500
        assert "ZeroDivisionError" in capsys.readouterr().err
        assert browser.delete(base).status_code == 501
    for head, status in (("POST /say HTTP/1.1\r\nContent-Length: " + "9" * 5000, 411),
                         ("POST /say HTTP/1.1\r\nContent-Length: \xb2", 411),
                         ("GET http://[ HTTP/1.1", 400), ("GET /a]b HTTP/1.1", 404)):
        with running(token=False) as (server, _), socket.create_connection(
                server.server_address) as client:
            client.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode("latin-1"))
            assert client.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())
    assert "Traceback" not in capsys.readouterr().err


def test_many_requests_at_once_are_all_answered():
    with running(token=False) as (_, base):
        def user(number):
            with requests.Session() as browser:
                replies = [browser.post(base + "/say", data=b"x" * (1000 * number + i))
                           for i in range(25)]
                return [reply.json()["size"] for reply in replies]
        with ThreadPoolExecutor(8) as pool:
            sizes = list(pool.map(user, range(8)))
        assert sizes == [[1000 * n + i for i in range(25)] for n in range(8)]


def test_one_connection_serves_many_requests_without_delay():
    """With delayed acknowledgements (Nagle's algorithm) every request would take 40 ms."""
    with running(token=False) as (server, _):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        seconds = []
        for i in range(50):
            began = time.monotonic()
            connection.request("POST", "/say", b"x" * i)
            assert json.loads(connection.getresponse().read())["size"] == i
            seconds.append(time.monotonic() - began)
        assert sorted(seconds)[10] < 0.03  # on a busy machine, others may take longer
        connection.close()


def test_a_slow_sender_is_heard_a_silent_one_cut_off_and_others_are_answered_meanwhile(monkeypatch):
    monkeypatch.setattr(Handler, "timeout", 2.0)  # seconds; 120 in use
    with (running(token=False) as (server, base),
          socket.create_connection(server.server_address[:2], 10) as slow):
        began = time.monotonic()
        slow.sendall(b"POST /say HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n")
        for _ in range(15):
            slow.sendall(b"x")
            time.sleep(0.2)
            assert requests.get(base).ok
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began > 2.5  # more than the timeout in all
        slow.sendall(b"POST /say HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\nx")
        while slow.recv(1000):  # what is left of the first reply, then the end of the connection
            pass


def begin(server, length, sent=b"x"):
    """Return a connection on which a body of `length` bytes has begun with those `sent`."""
    client = socket.create_connection(server.server_address[:2], 10)
    client.sendall(b"POST /say HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                   % length + sent)
    return client


def test_slow_senders_of_large_bodies_do_not_keep_others_waiting(monkeypatch):
    """Announced lengths reserved memory: four senders of a byte now and then stopped the page."""
    with running(token=False, max_body=25_000_000) as (server, base), ExitStack() as stack:
        slow = [stack.enter_context(begin(server, 24_000_000)) for _ in range(5)]
        time.sleep(0.3)
        assert requests.post(base + "/say", data=bytes(20_000_000), timeout=20).ok
        monkeypatch.setattr(page_server, "PART_SECONDS", 1)
        for client in slow:
            client.sendall(b"x")
        time.sleep(1.2)
        for client in slow:
            client.sendall(b"x")
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_bodies_share_the_memory_and_never_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(body_memory, "BODY_MEMORY", 100)
    monkeypatch.setattr(body_memory, "CLIENT_MEMORY", 50)
    memory, most = body_memory.BodyMemory(), []

    def send(number):
        with memory.hold(size := (7 * number) % 31, str(number % 3)) as take:
            for _ in range(size):
                take(1)
                most.append(sum(body.held for body in memory.bodies))
                time.sleep(0.001)
    with ThreadPoolExecutor(30) as pool:
        assert len(list(pool.map(send, range(90), timeout=60))) == 90
    assert 50 < max(most) <= 100
    with memory.hold(30, "slow") as first, ThreadPoolExecutor(30) as pool:
        first(1)  # and no more: nobody waits for the oldest
        assert len(list(pool.map(send, range(90), timeout=60))) == 90
    with memory.hold(40, "many") as first, memory.hold(40, "many") as second:
        first(30)
        second(10)
        blocked = threading.Thread(target=second, args=(20,))  # more than a share of both
        blocked.start()
        with memory.hold(60, "other") as take:  # larger than a share: all that the others leave
            take(60)
        blocked.join(0.2)
        assert blocked.is_alive()
        first(10)
    blocked.join(10)
    assert not blocked.is_alive()


def test_a_route_knows_whether_its_client_has_left():
    found, asked = [], threading.Event()

    def wait(request):
        found.append(request.has_left())
        asked.set()
        for _ in range(500):
            if request.has_left():
                break
            time.sleep(0.01)
        found.append(request.has_left())
        return Reply(b"")
    with running(token=False) as (server, _):
        server.routes = {("POST", "/say"): wait}
        with begin(server, 1):
            assert asked.wait(10)
        while len(found) < 2:
            time.sleep(0.01)
    assert found == [False, True]


def test_a_page_may_run_its_own_scripts_only(tmp_path):
    (tmp_path / "page.html").write_text(
        "<style>p {color: red}</style><script>alert(1)</script>", encoding="utf-8")
    reply = page(tmp_path / "page.html")(None)
    assert "script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='" in reply.policy
    assert "style-src 'sha256-" in reply.policy
    assert "unsafe" not in reply.policy


def test_a_port_in_use_is_named_with_the_flag_for_another():
    for more, flag in (({}, "--port"), ({"flag": "--review_port"}, "--review_port")):
        with running() as (server, _):
            port = server.server_port
            with pytest.raises(InputError, match=f"port {port}: .* {flag}"):
                PageServer(ROUTES, port=port, **more)


@pytest.mark.skipif(os.name == "nt", reason="sends the signal of Ctrl-C")
def test_ctrl_c_stops_the_server_without_a_traceback():
    env = {name: value for name, value in os.environ.items()
           if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    code = "from web.page_server import PageServer, serve; serve(PageServer({}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith("open http://127.0.0.1:")
    assert process.stdout.readline() == "Ctrl-C stops the page\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("stopped\n", "", 0)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_all_addresses_of_a_machine_are_those_of_both_versions():
    with running(host="::") as (server, base):
        assert server.url.startswith(f"http://[::1]:{server.server_port}/?token=")
        for url in (server.url, server.url.replace("[::1]", "127.0.0.1")):
            assert requests.get(url).ok
        assert requests.get(base).status_code == 403
