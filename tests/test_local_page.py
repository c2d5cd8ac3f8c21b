"""The small local server: token, hosts, origins, sizes, many at once."""
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from local_page import PageServer, Reply, json_reply


@pytest.fixture
def page():
    routes = {("GET", "/"): lambda request: Reply(b"<p>hello"),
              ("GET", "/photo/"): lambda request: Reply(request.path.encode(), "text/plain", keep_seconds=60),
              ("POST", "/say"): lambda request: json_reply({"size": len(request.body), **request.query})}
    with PageServer(routes, max_body=1000) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_the_token_opens_and_the_cookie_keeps_open(page):
    base = f"http://127.0.0.1:{page.server_port}"
    with requests.Session() as browser:
        assert browser.get(base).status_code == 403
        assert browser.get(base + "/?token=wrong").status_code == 403
        first = browser.get(page.url)
        assert (first.status_code, first.text) == (200, "<p>hello")
        assert first.headers["Cache-Control"] == "no-store" and "default-src 'none'" in first.headers[
            "Content-Security-Policy"]
        assert browser.get(base + "/photo/a/../b").text.startswith("/photo/")
        assert browser.get(base + "/photo/x").headers["Cache-Control"] == "private, max-age=60"
        assert browser.get(base + "/other").status_code == 404
        assert browser.post(base + "/say?a=b", data=b"x" * 1000).json() == {"size": 1000, "a": "b"}


def test_other_sites_and_names_are_refused(page):
    with requests.Session() as browser:
        assert browser.get(page.url).ok
        base = f"http://127.0.0.1:{page.server_port}"
        own = {"Origin": base}
        assert browser.post(base + "/say", data=b"", headers=own).ok
        assert browser.post(base + "/say", data=b"", headers={"Origin": "http://evil.example"}).status_code == 403
        assert browser.post(base + "/say", data=b"", headers={"Origin": "null"}).status_code == 403
        assert browser.get(base, headers={"Host": f"evil.example:{page.server_port}"}).status_code == 403
        assert browser.post(base + "/say", data=b"x" * 1001).status_code == 413
        assert browser.post(base + "/say", data=iter([b"chunked"])).status_code == 411


def test_many_at_once_are_all_answered(page):
    def ask(number):
        address = f"http://127.0.0.1:{page.server_port}/say?token={page.token}&n={number}"
        return requests.post(address, timeout=20).json()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(200)))
    assert [answer["n"] for answer in answers] == [str(number) for number in range(200)]
