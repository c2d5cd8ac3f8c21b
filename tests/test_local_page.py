"""The local web server: who is answered, what is refused, many at once, slow and broken senders."""
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
from contextlib import contextmanager

import pytest

import local_page
from tests.conftest import ROOT
from utils import InputError


def echo(request):
    return 200, "application/json", json.dumps({"query": request.query, "bytes": len(request.body)}).encode()


def complain(request):
    raise InputError("no such plant")


ROUTES = {("GET", "/"): lambda request: (200, "text/html; charset=utf-8", b"<p>here</p>"), ("POST", "/echo"): echo,
          ("POST", "/complain"): complain, ("POST", "/fail"): lambda request: 1 / 0}


@contextmanager
def running(**options):
    server = local_page.build_server(ROUTES, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server, method="GET", path="/", body=None, **headers):
    """Return (status, headers, body) of one request; keywords are headers with `_` for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def test_the_token_is_needed_and_moves_from_the_address_into_a_cookie():
    with running() as server:
        assert server.server_address[0] == "127.0.0.1"
        assert ask(server)[0] == 403
        assert ask(server, X_Token="wrong")[0] == ask(server, path="/?token=%C3%BC")[0] == 403
        status, headers, _ = ask(server, path="/" + server.url.split("/")[-1])
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        status, headers, body = ask(server, Cookie=f"other=1; {cookie.split(';')[0]}")
        assert (status, body) == (200, b"<p>here</p>")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert ask(server, X_Token=server.token)[0] == 200
    with running() as other:
        assert other.token != server.token


def test_names_of_other_sites_and_posts_from_them_are_refused():
    with running(token=False) as server:
        own = f"127.0.0.1:{server.server_port}"
        assert ask(server, "POST", "/echo", b"x")[0] == 200
        assert ask(server, "POST", "/echo", b"x", Origin=f"http://{own}")[0] == 200
        assert ask(server, Host=f"localhost:{server.server_port}")[0] == 200
        assert ask(server, Host="192.168.1.7:8000")[0] == 200  # a phone names the address it was given
        for headers in ({"Origin": "https://example.org"}, {"Origin": "null"}, {"Host": "evil.example.org"},
                        {"Host": ""}, {"Host": "127.0.0.1.example.org"}, {"Origin": "http://127.0.0.1:1"}):
            assert ask(server, "POST", "/echo", b"x", **headers)[0] == 403, headers


def test_addresses_methods_sizes_and_failures_have_their_status(capsys):
    with running(token=False, max_mb=0.001) as server:
        assert ask(server, path="/../local_page.py")[0] == ask(server, path="/nothing")[0] == 404
        assert ask(server, path="/echo")[0] == ask(server, "POST", "/", b"")[0] == 405
        sent = ask(server, "POST", "/echo?a=1&a=%2F&b", b"x" * 1000)[2]
        assert json.loads(sent) == {"query": {"a": "/", "b": ""}, "bytes": 1000}
        assert ask(server, "POST", "/echo", b"x" * 5_000_000)[0] == 413  # all of it sent, and the answer still read
        assert ask(server, "POST", "/echo", iter([b"x"]), Transfer_Encoding="chunked")[0] == 411
        assert ask(server, "POST", "/echo", None, Content_Length="-1")[0] == 411
        assert ask(server, "POST", "/complain", b"")[::2] == (400, b"no such plant")
        assert ask(server, "POST", "/fail", b"")[0] == 500
        assert "ZeroDivisionError" in capsys.readouterr().err
        assert ask(server, "DELETE")[0] == 501


def test_eight_users_with_two_hundred_requests_lose_none():
    with running(token=False, max_mb=2) as server:
        def user(number):
            return [json.loads(ask(server, "POST", "/echo", b"x" * (1000 * number + i))[2])["bytes"] for i in range(25)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(user, range(8))) == [[1000 * n + i for i in range(25)] for n in range(8)]


def test_one_connection_serves_many_requests_without_delay():
    with running(token=False) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        began = time.monotonic()
        for i in range(50):
            connection.request("POST", "/echo", b"x" * i)
            assert json.loads(connection.getresponse().read())["bytes"] == i
        assert time.monotonic() - began < 2  # 40 ms each if the two ends waited for each other
        connection.close()


def test_a_slow_sender_is_cut_off_and_others_are_served_meanwhile():
    with running(token=False, seconds=1.0) as server:
        slow = socket.create_connection(server.server_address[:2], timeout=10)
        slow.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 8:  # a byte now and then does not help
                slow.sendall(b"x")
                time.sleep(0.1)
                assert ask(server)[0] == 200
        assert 0.8 < time.monotonic() - began < 4
        slow.close()


def test_a_page_may_run_its_own_scripts_only(tmp_path):
    (tmp_path / "page.html").write_text("<style>p {color: red}</style><script>alert(1)</script>", encoding="utf-8")
    status, kind, body, headers = local_page.page(tmp_path / "page.html")(None)
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_a_port_in_use_is_named():
    with running() as server, pytest.raises(InputError, match=f"port {server.server_port} cannot be used"):
        local_page.build_server(ROUTES, port=server.server_port)


@pytest.mark.skipif(os.name == "nt", reason="sends the signal of Ctrl-C")
def test_ctrl_c_stops_it_plainly():
    code = "import local_page as lp; lp.serve(lp.build_server({}), 'here', open_page=True)"
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("here: http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("stopped\n", "", 0)
