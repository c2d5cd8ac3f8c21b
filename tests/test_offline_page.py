"""The page that needs no server: its folder, its runtime, and its answers in a browser."""
import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
import time
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

import app
import config
import export
from evaluation.facts import INTERPOLATIONS
from evaluation.together import correlation_of
from images import BadImage, View, encode
from predict import interpret, load_predictor, read_view
from tests.conftest import NAMES, draw, jpeg, on_screen, one_colour, shared, snapshot
from tests.file_server import FileServer
from training.checkpoints import load_checkpoint, save_checkpoint
from utils import InputError
from web.offline_page import LATER, write_folder
from web.runtime import FILES, read_runtime

SIDE = 160  # pixels of the network: photographs of 300 pixels are decoded whole


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """An npm package as installed: the real one that ONNXRUNTIME_WEB names, or one of its shape."""
    if folder := os.environ.get("ONNXRUNTIME_WEB"):
        return Path(folder)
    folder = tmp_path_factory.mktemp("npm")
    (folder / "dist").mkdir()
    (folder / "package.json").write_text('{"version": "1.2.3"}')
    for name in FILES:
        (folder / "dist" / name).write_bytes(name.encode() * 100)
    return folder


def export_flags(trained, checkpoint, package, folder):
    return [str(flag) for flag in (
        "--checkpoint", checkpoint, "--class_table", trained / "classes.csv", "--check_photos",
        trained / "photos/*.*g", "--web", folder, "--onnxruntime_web", package)]


@pytest.fixture(scope="module")
def written(trained, package, tmp_path_factory):
    """(folder of the page, flags that wrote it) of a network that answers ranks and sets."""
    folder = tmp_path_factory.mktemp("page")
    checkpoint = load_checkpoint(trained / "plants_model.pth.tar")
    limits = {"species": [0.6] * 55, "genus": [0.5] * 55, "family": [1.0] * 55}
    picture = base64.b64encode(jpeg(one_colour(1))).decode()
    classes = [{"latin": name, "genus": "Rosa", "picture": picture, "author": "Anna Ivanova",
                "note_en": "Thorns.", "note_ru": "Шипы."} for name in NAMES]
    save_checkpoint(folder / "network.pth.tar", {
        **checkpoint, "image_size": SIDE, "flip_tta": True, "classes": classes,
        "answers": {"source": "validation", "photographs": 3, "limits": limits,
                    "temperature_by_score": [0.02, 1.5], "set_limit": 0.7}})
    flags = export_flags(trained, folder / "network.pth.tar", package, folder / "page")
    export.main(flags)
    return folder / "page", flags


def write_again(page, changes):
    """Write a page anew, as a later export would, with changes of its facts."""
    facts = json.loads((page / "facts.json").read_text("utf-8"))
    network = (page / facts["network"]["file"]).read_bytes()
    runtime = {name: (page / name).read_bytes() for name in FILES}
    del facts["network"]["version"]
    write_folder(page, network, {**facts, **changes}, runtime, facts["network"]["runtime"])


def predictor_of(page):
    """Return (the network of a page as predict.py loads it, its settings)."""
    s, _ = config.parse(["--onnx", str(next(page.glob("network-*.onnx"))), "--top", "5"],
                        app.__file__, "")
    return load_predictor(s), s


@pytest.mark.slow
def test_the_folder_holds_all_that_its_worker_keeps(written):
    page, _ = written
    files = snapshot(page)
    worker = files.pop("worker.js").decode()
    kept, later = (json.loads(re.search(rf"{name} = (\{{.*\}});", worker)[1])
                   for name in ("FILES", "LATER"))
    hashes = {name: base64.b64encode(hashlib.sha256(data).digest()).decode()
              for name, data in files.items()}
    assert set(later) == set(LATER) and not set(later) & set(kept)
    assert {**kept, **later} == {"./" if name == "index.html" else name: value
                                 for name, value in hashes.items()}
    network = next(name for name in files if name.endswith(".onnx"))
    assert len(files[network]) < 0.6 * (page.parent / "network.pth.tar").stat().st_size
    facts = json.loads(files["facts.json"])
    assert facts["network"]["file"] == network and len(facts["network"]["version"]) == 8
    assert facts["network"]["limits"] == {"species": 0.6, "genus": 0.5, "family": 1.0}
    assert facts["classes"][0]["examples"][0]["image"].startswith("data:image/jpeg;base64,")
    predictor, _ = predictor_of(page)
    assert predictor.pictures == ({},) * 3  # they are in facts.json alone
    assert b"connect-src 'self'" in files["index.html"]
    assert not re.search(rb'(src|href)="(https?:)?//', files["index.html"])


@pytest.mark.slow
def test_a_later_export_replaces_an_earlier_page_and_nothing_else(written, tmp_path):
    page, flags = written
    shutil.copytree(page, tmp_path / "page")
    (tmp_path / "page/network-backup.onnx").write_bytes(b"kept")
    write_again(tmp_path / "page", {})
    assert snapshot(tmp_path / "page") == {**snapshot(page), "network-backup.onnx": b"kept"}
    (tmp_path / "page/facts.json").unlink()
    flags = [str(tmp_path / "page") if flag == str(page) else flag for flag in flags]
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="not empty"):
        export.main(flags)
    assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_app_serves_the_page_compressed_and_nothing_beside_it(written):
    page, _ = written
    server = app.build_server(config.parse(["--web", str(page)], app.__file__, "")[0])
    with server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for path, name in (("", "index.html"), (FILES[1], FILES[1]), ("facts.json", "facts.json")):
            reply = requests.get(server.url + path)
            assert reply.content == (page / name).read_bytes()
            assert reply.headers["Content-Encoding"] == "gzip"
            assert int(reply.headers["Content-Length"]) < len(reply.content)
        assert requests.get(server.url + "../network.pth.tar").status_code == 404
        server.shutdown()
    with pytest.raises(InputError, match="export.py --web"):
        app.build_server(config.parse(["--web", str(page.parent)], app.__file__, "")[0])


def test_the_runtime_comes_from_a_package_or_a_download_of_known_hash(package, tmp_path,
                                                                      monkeypatch):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("package.json", *(f"dist/{name}" for name in FILES)):
            tar.add(package / name, f"package/{name}")
    data = archive.getvalue()
    monkeypatch.setattr("web.runtime.ARCHIVE", tmp_path / "runtime.tar.gz")
    with FileServer() as server:
        server.files["/runtime.tgz"] = data
        url = server.url("/runtime.tgz")
        s = config.namespace(onnxruntime_web=f"{url}#{hashlib.sha256(data).hexdigest()}",
                             proxy="none")
        expected = read_runtime(config.namespace(onnxruntime_web=str(package)))
        assert read_runtime(s) == expected
        for address, message in ((f"{url}#{'0' * 64}", "expected 000"), (url, "lacks #")):
            s.onnxruntime_web = address
            with pytest.raises(InputError, match=message):
                read_runtime(s)
    with pytest.raises(InputError, match="npm install"):
        read_runtime(config.namespace(onnxruntime_web=str(tmp_path)))


# ---- in the browser ----

needs_runtime = pytest.mark.skipif(
    "ONNXRUNTIME_WEB" not in os.environ, reason="ONNXRUNTIME_WEB does not name the folder of the "
    "npm package onnxruntime-web")


@contextlib.contextmanager
def static_host(folder, port=0):
    """Serve a folder as `python -m http.server` does; yield the address."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass
    with ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def ready(browser):
    """Wait until the network is loaded."""
    failure = browser.execute_async_script("""const done = arguments[0], look = () => facts
        ? backend.session.then(() => done(""), error => done(String(error)))
        : setTimeout(look, 20); look()""")
    assert failure == ""


@pytest.fixture(scope="module")
def kept(written, browser, tmp_path_factory):
    """The browser with the page opened once and its host stopped; (browser, folder, address)."""
    folder = tmp_path_factory.mktemp("host") / "page"
    shutil.copytree(written[0], folder)
    with static_host(folder) as address:
        browser.get(address + "?language")
        ready(browser)
        browser.execute_async_script("""const [done] = arguments, look = () => document
            .getElementById("version").textContent.includes("works without a network")
            ? done() : setTimeout(look, 20); look()""")
    browser.get(address)
    ready(browser)
    return browser, folder, address


ANSWER = """const [data, done] = arguments;
    const file = new File([Uint8Array.from(atob(data), char => char.charCodeAt(0))], "photo");
    readView(file, facts.network.view, facts.megapixels).then(async view => {
      const outputs = await (await backend.session)(view);
      done({view: btoa(view.reduce((text, byte) => text + String.fromCharCode(byte), "")),
            outputs: [...outputs], prediction: interpret([outputs], facts.network)});
    }).catch(error => done({refused: error.refused || String(error)}))"""
SAME = ("verdict", "reason", "scientificName", "taxonRank", "set")


def pixels_of(found, shape):
    """Return the view that the page made."""
    return np.frombuffer(base64.b64decode(found["view"]), np.uint8).reshape(shape).astype(int)


def compare(browser, data, predictor, s):
    """Return how the page's answer for a photograph differs from that of predict.py.

    That is (what differs of the answer, largest difference of pixels, of outputs).
    """
    found = browser.execute_async_script(ANSWER, base64.b64encode(data).decode())
    try:
        view = read_view(data, predictor.view, s)
    except BadImage as error:
        return ("" if "refused" in found else f"answered, predict.py: {error}"), 0, 0
    if "refused" in found:
        return f"refused: {found['refused']}", 0, 0
    outputs = predictor.outputs(view[None])
    expected = interpret(outputs, predictor, s)[0]
    pixels = pixels_of(found, view.shape)
    given = found["prediction"]
    differing = [key for key in SAME if given[key] != expected[key]]
    differing += ["names"] * ([one["label"] for one in given["names"]]
                              != [one["label"] for one in expected["names"]])
    return (", ".join(differing), int(np.abs(pixels - view).max()),
            float(np.abs(found["outputs"] - outputs[0]).max()))


VIEW = """const [data, kind, done] = arguments;
    const file = new File([Uint8Array.from(atob(data), char => char.charCodeAt(0))], "photo");
    readView(file, kind, facts.megapixels).then(view => done({view: btoa(view.reduce(
        (text, byte) => text + String.fromCharCode(byte), ""))})).catch(() => done(null))"""


def view_is_same(browser, data, view, s):
    """Return whether the page makes the same view of a photograph, or both refuse it."""
    found = browser.execute_async_script(
        VIEW, base64.b64encode(data).decode(),
        {**view._asdict(), "resized_side": view.resized_side})
    try:
        expected = read_view(data, view, s)
    except BadImage:
        return found is None
    return bool(found) and np.array_equal(pixels_of(found, expected.shape), expected)


@pytest.mark.browser
@needs_runtime
def test_without_a_network_the_page_answers_logs_and_sends_nothing(kept, tmp_path):
    browser, page, _ = kept
    predictor, s = predictor_of(page)
    for label, kind in enumerate(("JPEG", "PNG", "WEBP")):
        image = io.BytesIO()
        one_colour(label, (1500, 1300)).save(image, kind)
        assert compare(browser, image.getvalue(), predictor, s)[0] == ""
    browser.execute_script("localStorage.clear()")
    (tmp_path / "green.jpg").write_bytes(jpeg(one_colour(1)))
    chosen = browser.find_element("css selector", "#stage input[type=file]")
    chosen.send_keys(str(tmp_path / "green.jpg"))
    browser.execute_async_script("""const look = () => answerLog.read().length
        ? arguments[0]() : setTimeout(look, 20); look()""")
    assert browser.find_element("css selector", ".names i").text == "Rosa secunda"
    assert "Thorns." in browser.find_element("css selector", ".caution").text
    text = browser.execute_script("return answerLog.csv()").removeprefix("\ufeff")
    entry, = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    assert (entry["scientificName"], entry["taxonRank"]) == ("Rosa secunda", "species")
    taken = datetime.fromisoformat(entry["eventDate"])
    assert abs(taken.timestamp() - time.time()) < 60
    row = browser.execute_script("return document.querySelector('.log small').textContent")
    assert f"{taken:%b} {taken.day}, {taken.year}" in row  # 2/3/2027 is not the same everywhere
    status = browser.execute_script("""navigator.serviceWorker.dispatchEvent(
        new MessageEvent("message", {data: {kept: 8, of: 8}}));
        return document.getElementById("version").textContent""")
    assert "works without a network" in status  # a late message does not take it back
    refused = browser.execute_async_script("""document.addEventListener("securitypolicyviolation",
        event => arguments[0](event.effectiveDirective));
        fetch("https://example.org/", {method: "POST", body: "photo"}).catch(() => {})""")
    assert refused == "connect-src"


@pytest.mark.browser
@needs_runtime
def test_the_rules_of_the_answer_are_those_of_predict(kept):
    """Random outputs, so that every verdict comes up; also of several photographs of a plant."""
    browser, page, _ = kept
    predictor, s = predictor_of(page)
    predictor = predictor._replace(ood_threshold=0.2)
    rng = np.random.default_rng(0)
    rows = np.round(np.c_[rng.normal(0, 2, (300, 3)), rng.uniform(0, 1, 300)], 3)
    given = browser.execute_script("""const network = {...facts.network, threshold: 0.2};
        return arguments[0].map(row => interpret([row], network))""", rows.tolist())
    expected = interpret(rows, predictor, s)
    assert {one["verdict"] for one in expected} == {"ok", "genus", "not sure"}
    assert [[one[key] for key in SAME] for one in given] == [
        [one[key] for key in SAME] for one in expected]
    chances = [[name["probability"] for name in one["names"]] for one in given]
    assert np.allclose(chances, [[name["probability"] for name in one["names"]]
                                 for one in expected], atol=2e-4)
    together = rows[:3].mean(0)
    together[:-1] *= 3 / (1 + 2 * correlation_of(predictor.answers))
    joined = browser.execute_script("return interpret(arguments[0], facts.network)",
                                    rows[:3].tolist())
    alone = interpret(together[None], predictor, s)[0]
    assert joined["names"][0]["probability"] == alone["names"][0]["probability"]


@pytest.mark.browser
@needs_runtime
def test_a_newer_version_is_offered_and_loaded(kept):
    browser, page, address = kept
    before = browser.find_element("id", "version").text
    write_again(page, {"max_risk": 0.3})
    with static_host(page, int(address.split(":")[2].strip("/"))):
        browser.get(address)
        ready(browser)
        assert before[:16] in browser.find_element("id", "version").text
        browser.execute_async_script("""const look = () => document.getElementById("newer")
            ? arguments[0]() : setTimeout(look, 20); look()""")
        browser.find_element("id", "newer").click()
        from selenium.webdriver.support.ui import WebDriverWait
        WebDriverWait(browser, 20, ignored_exceptions=[Exception]).until(
            lambda driver: before[:16] not in driver.find_element("id", "version").text)
    browser.get(address)  # the host is stopped
    ready(browser)
    assert before[:16] not in browser.find_element("id", "version").text


@pytest.mark.browser
@needs_runtime
def test_a_view_is_resized_as_pillow_does(kept):
    browser, page, _ = kept
    _, s = predictor_of(page)
    data = encode(draw(0, (611, 353), detail=60), "PNG")
    for interpolation in INTERPOLATIONS:
        assert view_is_same(browser, data, View(SIDE, 0.95, interpolation), s), interpolation
    for size in ((901, 700), (1450, 1203), (2403, 1601), (4901, 3700)):  # libjpeg would scale them
        data = jpeg(draw(1, size, detail=90), subsampling=2)
        assert view_is_same(browser, data, View(SIDE), s), size


# Chromium does not decode these, which the page says; it ignores an orientation in XMP.
BEYOND = re.compile(r"\.(tiff?|p[bgpn]m|jp2|j2k)$|xmp_tags")


@pytest.mark.browser
@pytest.mark.photos
@needs_runtime
def test_real_photographs_get_the_answers_of_predict(kept):
    browser, page, _ = kept
    predictor, s = predictor_of(page)
    flowers = sorted(shared("photos/flowers").glob("*/*.jpg"))[::9]
    turned = sorted(shared("photos/exif_orientation").iterdir())
    odd = [path for path in sorted(shared("photos/odd_files").iterdir())
           if path.suffix in (".jpg", ".png", ".webp", ".gif", ".bmp", ".mpo", ".ico", ".cur")
           and not BEYOND.search(path.name)]
    assert len(flowers) + len(turned) + len(odd) > 300
    for index, path in enumerate((*flowers, *turned, *odd)):
        if index % 10 and view_is_same(browser, path.read_bytes(), predictor.view, s):
            continue  # then the outputs are, too, and the rules of the answer have their own test
        answer, pixels, outputs = compare(browser, path.read_bytes(), predictor, s)
        most = 0.05 if pixels <= 1 else 0.1  # Chromium converts CMYK in a way of its own
        assert answer == "" and pixels <= 3 and outputs < most, (path, answer, pixels, outputs)


@pytest.mark.browser
@needs_runtime
def test_axe_finds_nothing_on_a_phone_in_either_language(kept, tmp_path):
    if not (axe := os.environ.get("AXE_CORE")):
        pytest.skip("AXE_CORE does not name an axe.min.js")
    browser, *_ = kept
    with on_screen(browser, 320, 640, 2):
        browser.execute_script("state.logOpen = true; job = null; render()")
        for language in ("ru", "en"):
            browser.find_element("css selector", f"[data-language={language}]").click()
            browser.execute_script(Path(axe).read_text("utf-8"))
            found = browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
            assert [one["id"] for one in found] == []
            assert browser.execute_script("return document.documentElement.scrollWidth") == 320
