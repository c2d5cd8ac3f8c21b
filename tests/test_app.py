"""The page of app.py: predictions, refusals, many users at once, and the page in a browser."""
import io
import os
import re
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

import app
import config
from dataset_preparation import feedback
from dataset_preparation.feedback import keep_feedback, read_feedback
from evaluation.grad_cam import grad_cam, heat_layer
from evaluation.together import combine_photographs
from images import View, encode
from predict import interpret, load_predictor, read_view
from tests.conftest import NAMES, ROOT, jpeg, make_labelled, on_screen, one_colour, snapshot
from utils import InputError
from web.page_server import PageServer, Request


@pytest.fixture(scope="module")
def flags(trained, tmp_path_factory):
    """The flags of an app with a small network and training photographs of two of its classes."""
    dataset = make_labelled(tmp_path_factory.mktemp("app") / "dataset", NAMES[1:], train=12,
                            size=(500, 400))
    table = dataset / "train_labels.csv"
    credits = ",https://example.org/1,cc-by-nc,Anna Ivanova"
    table.write_text(re.sub(r",,,$", credits, table.read_text("utf-8"), flags=re.MULTILINE),
                     encoding="utf-8")
    return [str(flag) for flag in (
        "--checkpoint", trained / "plants_model.pth.tar", "--class_table", trained / "classes.csv",
        "--dataset_dir", dataset, "--no-open_browser", "--device", "cpu", "--max_megapixels", "5",
        "--upload_mb", "4")]


@contextmanager
def running(server):
    """Yield (a session that holds the token, the address) of a server that answers meanwhile."""
    with server, requests.Session() as session:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        assert session.get(server.url).ok
        yield session, server.url.split("?")[0]
        server.shutdown()


def settings(flags):
    return config.parse(flags, app.__file__, "")[0]


@pytest.fixture
def page(flags):
    server = app.build_server(settings(flags))
    assert server.server_address[0] == "127.0.0.1"
    with running(server) as (session, base):
        yield session, base


def bomb(side):
    """Return a PNG of side x side black pixels in a few kilobytes."""
    data = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_the_app_predicts_what_predict_py_predicts(page, flags):
    session, base = page
    s = settings([*flags, "--top", "5"])
    predictor = load_predictor(s)
    for label, kind in enumerate(("JPEG", "PNG", "WEBP")):
        data = encode(one_colour(label), kind)
        given = session.post(base + "predict", data=data)
        assert given.ok
        outputs = predictor.outputs(read_view(data, View(64), s)[None])
        answer = interpret(outputs, predictor, s)[0]
        assert given.json() == {**answer, "outputs": outputs[0].tolist()}
        rows = [outputs[0].tolist(), [0.0, 1.0, 2.0, 3.0]]
        assert session.post(base + "interpret", json=rows[:1]).json() == answer
        assert session.post(base + "interpret", json=rows).json() == interpret(
            combine_photographs(np.array(rows), 0.5)[0][None], predictor, s)[0]
        assert [one["latin"] for one in given.json()["names"]][0] == NAMES[label]
        assert len(given.json()["names"]) == 3
    for body in (b"", b"[]", b"[[1, 2]]", b"[[null, 1, 2, 3]]", b"{}", b"[[NaN, 1, 2, 3]]",
                 b"[[1" + b"0" * 400 + b", 1, 2, 3]]", b"[" * 9000,
                 b"[[[1], [2], [3], [4]]]"):
        assert session.post(base + "interpret", data=body).status_code == 400
    lists = b"[" + b"[]," * 200_000 + b"[]]"  # with 24 MB of them, a minute and 926 MB
    assert session.post(base + "interpret", data=lists).status_code == 413
    assert session.get(f"{base}example?label={'9' * 5000}&index=0").status_code == 400
    facts = session.get(base + "facts").json()
    russian = [plant["russian"] for plant in facts["classes"]]
    assert russian == ["роза первая", "роза вторая", ""]
    assert (facts["heat"], facts["calibrated"], facts["out_of_distribution"]) == (True, True, True)
    assert facts["calibrated_on"] is None  # a checkpoint of before format 3


def test_uploads_that_are_no_photographs_are_refused_with_the_reason(page):
    session, base = page
    whole, frames = jpeg(one_colour(0)), [one_colour(label) for label in range(3)]
    for data, kind in ((b"", "empty"), (b"hello", "unknown"), (b"<svg/>", "unknown"),
                       (whole[:400], "broken"), (bomb(2300), "pixels"), (bomb(60_000), "pixels"),
                       (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
                        "animation"),
                       (encode(Image.new("F", (9, 9)), "TIFF"), "broken")):
        refused = session.post(base + "predict", data=data)
        assert (refused.status_code, refused.json()["refused"]) == (422, kind)
        assert session.post(base + "heat?label=0", data=data).status_code == 400
    scan = encode(frames[1], "TIFF", save_all=True, append_images=frames[:1])
    assert session.post(base + "predict", data=scan).json()["further_pages"] == 1
    assert session.post(base + "predict", data=whole + bytes(4_000_001)).status_code == 413
    assert session.post(base + "predict", data=whole).ok
    text = (ROOT / "web/answer_text.js").read_text("utf-8")
    for kind in {*app.REFUSALS.values(), "broken"}:
        assert len(re.findall(rf"\b{kind}: [\w()]+ =>", text)) == 2, f"{kind} in both languages"


def test_corrections_are_stored_only_with_consent_and_with_feedback_on(page, flags, tmp_path):
    session, base = page
    data = jpeg(one_colour(0))
    assert session.post(base + "feedback?label=1&consent=yes", data=data).status_code == 404
    assert not session.get(base + "facts").json()["feedback"]
    s = settings([*flags, "--feedback", "--collected_dir", str(tmp_path)])
    with running(app.build_server(s)) as (other, address):
        for query, status in (("label=1", 400), ("label=9&consent=yes", 400),
                              ("label=1&consent=yes", 200), ("label=1&consent=yes", 200),
                              ("label=none&consent=yes", 200)):
            assert other.post(f"{address}feedback?{query}", data=data).status_code == status
        assert other.post(address + "feedback?label=1&consent=yes", data=b"no").status_code == 400
    said, none = rows = read_feedback(tmp_path)
    assert [(row["latin"], row["predicted"], row["verdict"]) for row in rows] == [
        (NAMES[1], NAMES[0], "ok"), ("", NAMES[0], "ok")]
    assert [(tmp_path / row["file"]).read_bytes() for row in rows] == [data] * 2
    assert (said["file"].startswith(f"images/{NAMES[1]}/"), none["file"][:9]) == (True, "feedback/")
    assert said["network"].startswith("plants_model.pth.tar ")
    with pytest.raises(InputError, match="cannot be a folder name"):
        keep_feedback(tmp_path, data, "../x", {}, "")


def test_corrections_have_a_limit_of_bytes_and_no_format_that_predictions_refuse(
        tmp_path, monkeypatch):
    """5,000 photographs of 25 MB were 125 GB."""
    prediction = {"names": [{"latin": NAMES[0], "probability": 0.9}], "verdict": "ok"}
    data = [jpeg(one_colour(label)) + bytes(1000) for label in range(3)]
    monkeypatch.setattr(feedback, "MAX_BYTES", sum(map(len, data)) - 1)
    for photograph in (*data[:2], data[0]):  # the last one takes the place of the first
        keep_feedback(tmp_path, photograph, NAMES[1], prediction, "")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="2 rows"):
        keep_feedback(tmp_path, data[2], NAMES[1], prediction, "")
    with pytest.raises(OSError, match="cannot identify"):
        keep_feedback(tmp_path, encode(one_colour(0), "TGA"), NAMES[1], prediction, "")
    assert snapshot(tmp_path) == before


def test_clients_that_have_left_are_not_worked_for(flags):
    s = settings(flags)
    predict = app.build_routes(load_predictor(s), [[]] * 3, s)["POST", "/predict"]
    data = jpeg(one_colour(0))
    assert predict(Request("/predict", {}, data)).status == 200
    assert predict(Request("/predict", {}, data, lambda: True)).status == 408


def test_examples_never_lie_outside_the_dataset(tmp_path):
    for name in ("private/Rosa prima/a.jpg", "dataset/train/Rosa prima/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    paths = ["train/Rosa prima/a.jpg", "../private/Rosa prima/a.jpg",
             "..\\private\\Rosa prima\\a.jpg", str(tmp_path / "private/Rosa prima/a.jpg")]
    (tmp_path / "dataset/train_labels.csv").write_text("path\n" + "\n".join(paths) + "\n")
    found, = app.find_examples(tmp_path / "dataset", ["Rosa prima"], 9)
    assert [row["path"] for row in found] == paths[:1]


def test_examples_are_small_training_photographs_with_their_authors(page):
    session, base = page
    classes = session.get(base + "facts").json()["classes"]
    assert [len(one["examples"]) for one in classes] == [0, 5, 5]
    assert classes[1]["examples"][0] == {"author": "Anna Ivanova", "license": "cc-by-nc",
                                         "url": "https://example.org/1"}
    shown = [session.get(f"{base}example?label=1&index={index}") for index in range(5)]
    assert len({reply.content for reply in shown}) == 5
    image = Image.open(io.BytesIO(shown[0].content))
    assert (image.format, min(image.size)) == ("JPEG", app.EXAMPLE_SIDE)
    assert np.asarray(image).mean((0, 1)).argmax() == 0  # that dataset's first class is reddish
    for query in ("", "?label=1", "?label=0&index=0", "?label=3&index=0", "?label=1&index=5",
                  "?label=-1&index=0", "?label=1&index=../../x"):
        assert session.get(f"{base}example{query}").status_code == 400


def test_the_heat_map_is_grad_cam_of_the_requested_class(page, flags):
    session, base = page
    s = settings(flags)
    predictor = load_predictor(s)
    data = jpeg(one_colour(2))
    view = torch.from_numpy(read_view(data, View(64), s)[None])
    for label in range(3):
        shown = Image.open(io.BytesIO(session.post(f"{base}heat?label={label}", data=data).content))
        images = predictor.network.normalize(view)
        heat = grad_cam(predictor.network.model, images, torch.tensor([label]))[0]
        assert np.array_equal(np.asarray(shown), heat_layer(heat))
    assert session.post(base + "heat?label=3", data=data).status_code == 400
    onnx_like = predictor._replace(network=None)
    with running(PageServer(app.build_routes(onnx_like, [[]] * 3, s))) as (other, address):
        assert other.post(address + "heat?label=0", data=data).status_code == 404
        assert not other.get(address + "facts").json()["heat"]


def memory(pid):
    """Return the resident memory of a process in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1000


def test_eight_clients_at_once_lose_no_answer_and_store_no_photograph(flags, tmp_path):
    """The script, open to the network, answers 200 photographs of 4 megapixels in flat memory."""
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, str(ROOT / "app.py"), *flags, "--host", "0.0.0.0"],
                               cwd=tmp_path, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        here, phone = (re.search(r"http://\S+", process.stdout.readline())[0] for _ in range(2))
        assert here.startswith("http://127.0.0.1:")
        assert phone.split("?")[1] == here.split("?")[1]
        photos = [jpeg(one_colour(label, (2200, 1800))) for label in range(3)]

        def person(number):
            with requests.Session() as session:
                assert session.get(phone if number % 2 else here).ok
                base = (phone if number % 2 else here).split("?")[0]
                replies = [session.post(base + "predict", data=photos[(number + i) % 3]).json()
                           for i in range(25)]
                return [reply["names"][0]["label"] for reply in replies]
        with ThreadPoolExecutor(8) as pool:
            warm = list(pool.map(person, range(2)))
            before = memory(process.pid) if sys.platform == "linux" else 0
            labels = list(pool.map(person, range(8)))
            growth = memory(process.pid) - before if sys.platform == "linux" else 0
        assert warm + labels == [[(n + i) % 3 for i in range(25)] for n in (0, 1, *range(8))]
        assert growth < 40  # MB; one photograph has 12 MB of pixels, so 200 would have 2,400
        assert snapshot(tmp_path) == {}
    finally:
        process.kill()
        process.wait()


def peak_memory(pid):
    """Return the largest resident memory that a process has had, in MB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_thirty_uploads_of_24_megabytes_at_once_stay_in_bounded_memory(flags, tmp_path):
    large = jpeg(one_colour(1, (2200, 1800))) + bytes(24_000_000)
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "app.py"), *flags, "--upload_mb", "25"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]

        def post(_):
            with requests.Session() as session:
                assert session.get(url).ok
                return session.post(url.split("?")[0] + "predict", data=large, timeout=120)
        assert post(0).ok
        before = peak_memory(process.pid)
        with ThreadPoolExecutor(30) as pool:
            replies = list(pool.map(post, range(30)))
        assert [reply.json()["names"][0]["label"] for reply in replies] == [1] * 30
        assert peak_memory(process.pid) - before < 200  # MB; 30 bodies are 720, joined 1,440
    finally:
        process.kill()
        process.wait()


# ---- in the browser ----

@pytest.fixture
def opened(flags, browser, tmp_path):
    """The page opened in Chromium, as for the first time, in English."""
    with app.build_server(settings([*flags, "--feedback", "--collected_dir", str(tmp_path)])
                          ) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        browser.get(server.url)
        browser.delete_all_cookies()
        browser.get(server.url)
        browser.get_log("browser")
        yield browser
        errors = [entry["message"] for entry in browser.get_log("browser")]
        assert [message for message in errors if "422" not in message] == []
        browser.get("about:blank")
        server.shutdown()


def seen(browser, selector):
    """Return the texts of what a selector finds, once there is something."""
    from selenium.webdriver.support.ui import WebDriverWait
    return [node.text for node in WebDriverWait(browser, 20).until(
        lambda driver: driver.find_elements("css selector", selector))]


@contextmanager
def in_russian(browser):
    """Show a page in Russian while the block runs."""
    seen(browser, "#start")
    browser.find_element("css selector", "[data-language=ru]").click()
    try:
        yield
    finally:
        browser.find_element("css selector", "[data-language=en]").click()


def give(browser, path, then=".names li"):
    """Choose a file as a person does and wait for what comes of it."""
    seen(browser, "input[type=file]")
    browser.find_element("css selector", "input[type=file]").send_keys(str(path))
    return seen(browser, then)


def save(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.browser
def test_a_photograph_gets_its_name(opened, tmp_path):
    shown = give(opened, save(tmp_path / "green.jpg", jpeg(one_colour(1))))
    assert shown[0].startswith("Rosa secunda\nsecond rose · роза вторая\n")
    assert len(shown) == 3
    assert opened.find_elements("id", "unsure") == []
    assert len(seen(opened, ".names .examples img")) == 5
    assert "Anna Ivanova, CC BY-NC" in seen(opened, ".credits")[0]
    opened.find_element("css selector", ".names .examples button").click()
    source = opened.find_element("css selector", "dialog small:not(.links) a")
    assert source.get_attribute("href") == "https://example.org/1"
    opened.find_element("css selector", "dialog .plain").click()
    bars = [bar.size["width"] for bar in opened.find_elements("css selector", ".bar div")]
    assert bars == sorted(bars, reverse=True)
    opened.find_element("css selector", "#wrong summary").click()
    opened.find_element("css selector", "#wrong option[value='0']").click()
    opened.find_element("css selector", "#wrong .main").click()
    assert read_feedback(tmp_path) == []  # not without consent
    opened.find_element("css selector", "#wrong input").click()
    opened.find_element("css selector", "#wrong .main").click()
    assert "Thank you" in seen(opened, "#corrected")[0]
    assert [row["latin"] for row in read_feedback(tmp_path)] == ["Rosa prima"]
    red, notes = save(tmp_path / "red.jpg", jpeg(one_colour(0))), save(tmp_path / "n.jpg", b"no")
    give(opened, f"{tmp_path / 'green.jpg'}\n{red}\n{notes}", "#together")
    assert seen(opened, "#together") == [
        "One answer for 2 photographs of one plant. Not read: n.jpg."]


@pytest.mark.browser
def test_refusals_are_explained_in_both_languages(opened, tmp_path):
    said = give(opened, save(tmp_path / "notes.jpg", b"shopping list"), "#refused")
    assert "HEIC" in said[0]
    said = give(opened, save(tmp_path / "huge.jpg", bytes(4_100_000)), "#refused")
    assert "4 megabytes" in said[0]
    opened.find_element("css selector", "[data-language=ru]").click()
    assert "4 мегабайт" in seen(opened, "#refused")[0]
    assert give(opened, save(tmp_path / "red.png", encode(one_colour(0), "PNG")))[0].startswith(
        "Rosa prima\nроза первая · first rose")


@pytest.mark.browser
def test_dropping_and_pasting_work_as_choosing_does(opened):
    send = """const [way, address, done] = arguments;
        fetch(address).then(reply => reply.blob()).then(bytes => {
          const data = new DataTransfer(), [kind, key] = {drop: [DragEvent, "dataTransfer"],
            paste: [ClipboardEvent, "clipboardData"]}[way];
          data.items.add(new File([bytes], "photo.jpg", {type: "image/jpeg"}));
          const options = {[key]: data, bubbles: true, cancelable: true};
          document.body.dispatchEvent(new kind(way, options));
          done();
        })"""
    seen(opened, "#start")
    shown = []
    for way, label in (("drop", 1), ("paste", 2)):
        opened.execute_async_script(send, way, f"/example?label={label}&index=0")
        assert len(seen(opened, ".names li")) == 3
        shown.append(opened.find_element("css selector", ".photo img").get_attribute("src"))
    assert shown[0] != shown[1]


@pytest.mark.browser
def test_language_and_theme_are_remembered(opened):
    seen(opened, "#start")
    opened.find_element("css selector", "[data-language=ru]").click()
    opened.find_element("id", "theme").click()
    theme = opened.execute_script("return document.documentElement.dataset.theme")
    assert "token" not in opened.current_url
    opened.refresh()
    assert seen(opened, "h1") == ["Что это за растение?"]
    root = opened.find_element("css selector", "html")
    assert (root.get_attribute("lang"), root.get_attribute("data-theme")) == ("ru", theme)


@pytest.mark.browser
def test_the_heat_map_is_toggled_and_follows_the_chosen_name(opened, tmp_path):
    give(opened, save(tmp_path / "blue.jpg", jpeg(one_colour(2, (200, 120)))))
    assert seen(opened, ".heat:not(.on)")
    opened.find_element("id", "show-heat").click()
    assert seen(opened, ".heat.on")
    first = opened.find_element("css selector", ".heat.on")
    address, box = first.get_attribute("src"), opened.find_element("css selector", ".photo").size
    assert first.size["width"] == pytest.approx(first.size["height"], abs=1.5)  # the square view
    assert first.size["height"] == pytest.approx(box["height"] * 64 / 73, abs=1.5)
    opened.find_elements("css selector", ".names button[aria-expanded=false]")[0].click()
    assert seen(opened, f".heat.on:not([src='{address}'])")
    opened.find_element("id", "show-heat").click()
    assert seen(opened, ".heat:not(.on)")


@pytest.mark.browser
def test_a_reload_keeps_the_answer_and_the_title_leads_to_the_start(opened, tmp_path):
    given = give(opened, save(tmp_path / "green.jpg", jpeg(one_colour(1, (1200, 900)))))
    opened.execute_async_script("""const look = () => sessionStorage.getItem("answer")
        ? arguments[0]() : setTimeout(look, 20); look()""")
    opened.refresh()
    assert seen(opened, ".names li") == given
    size = "const image = document.querySelector('.photo img'); return image.naturalWidth"
    assert opened.execute_script(size) in (0, 800)  # 0: not decoded yet
    assert opened.find_elements("id", "show-heat") == []  # it needs the photograph itself
    opened.find_element("css selector", "header a").click()
    assert seen(opened, "#start") and opened.find_elements("css selector", ".names") == []


@pytest.mark.browser
def test_the_app_page_fits_a_phone(opened, tmp_path):
    with on_screen(opened, 360, 740, 2):
        width = "return document.documentElement.scrollWidth"
        seen(opened, "#start")
        assert opened.execute_script(width) == 360
        camera = opened.find_element("css selector", "[capture=environment]")
        assert camera.get_attribute("accept") == "image/*"
        assert len(opened.find_elements("css selector", "[capture]")) == 1  # not the gallery's
        few = ("facts.calibrated_on = 14; render();"
               "return document.querySelector('footer').textContent")
        assert "calibrated on 14 photographs only" in opened.execute_script(few)
        give(opened, save(tmp_path / "red.jpg", jpeg(one_colour(0))))
        assert opened.execute_script(width) == 360
        opened.find_element("css selector", "#wrong summary").click()
        opened.execute_script("document.querySelector('#wrong option').text = 'long '.repeat(20)")
        ends = "return [...document.querySelectorAll('#wrong form > *')].map(%s)"
        ends = opened.execute_script(ends % "one => one.getBoundingClientRect().right")
        assert len(ends) == 3 and max(ends) <= 360


@pytest.mark.browser
def test_on_a_narrow_phone_in_russian_words_and_signs_stay_where_they_belong(opened, tmp_path):
    with on_screen(opened, 320, 640), in_russian(opened):
        give(opened, save(tmp_path / "notes.jpg", b"shopping list"), "#refused")
        assert opened.execute_script("""return [...document.querySelectorAll(
            "#refused .button:not(.take)")].map(one => one.offsetHeight)""") == [44]
        taller = "const [one, ...parts] = [document.querySelector('.known summary'), ...document" \
            ".querySelectorAll('.known summary > *')]; return one.offsetHeight - parts.reduce(" \
            "(sum, part) => sum + part.offsetHeight, 0)"
        assert opened.execute_script(taller) < 10  # the sign is beside them
        assert opened.execute_script("""facts.classes[0].russian = "известняковолюбивая".repeat(3);
            job = null; render();
            return Math.max(...[...document.querySelectorAll(".plants *")].map(
                one => one.getBoundingClientRect().right))""") <= 304


@pytest.mark.browser
def test_photographs_that_cannot_be_shown_have_numbers_and_buttons_one_line(opened, tmp_path):
    with on_screen(opened, 360, 740), in_russian(opened):
        assert "сеть:\u00a03" in opened.execute_script(
            "return document.querySelector('.known h2').textContent")
        files = [save(tmp_path / name, encode(one_colour(label), kind))
                 for label, (name, kind) in enumerate((("a.jpg", "JPEG"), ("b.tif", "TIFF")))]
        give(opened, "\n".join(map(str, files)))
        assert seen(opened, "#photos .none") == ["2"]
        assert opened.execute_script("""return [...document.querySelectorAll(
            ".sheet .actions > *")].map(one => one.offsetHeight)""") == [44, 44]


@pytest.mark.browser
def test_a_set_of_names_follows_them_and_is_shown_where_it_says_more(opened, tmp_path):
    give(opened, save(tmp_path / "red.jpg", jpeg(one_colour(0))))
    where = """Object.assign(job.prediction, arguments[0]); render();
        const set = document.getElementById("set"), names = document.querySelector(".names");
        return set && [set.textContent, Boolean(set.compareDocumentPosition(names) & 2)]"""
    one, two = NAMES[:1], NAMES[:2]
    for reason in ("", "risk"):
        assert opened.execute_script(where, {"reason": reason, "set": one}) is None
        text, below = opened.execute_script(where, {"reason": reason, "set": two})
        assert ", ".join(two) in text and below == (reason == "")


@pytest.mark.browser
def test_the_answer_has_the_focus_and_pasted_text_leaves_it(opened, tmp_path):
    give(opened, save(tmp_path / "green.jpg", jpeg(one_colour(1))))
    focus = "return document.activeElement.tagName + ' ' + document.activeElement.textContent"
    assert opened.execute_script(focus) == "H1 Rosa secunda"
    opened.execute_script("""const data = new DataTransfer();
        data.setData("text/plain", "a mistake");
        document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data,
                                                                 bubbles: true}))""")
    assert seen(opened, ".names li")[0].startswith("Rosa secunda")
    opened.find_element("css selector", ".names .examples button").click()
    names = opened.execute_script("return [...document.querySelectorAll('dialog .examples img')]"
                                  ".map(image => image.alt)")
    assert len(names) == 5 and all(names)
    opened.find_element("css selector", "dialog .plain").click()
    give(opened, save(tmp_path / "notes.jpg", b"shopping list"), "#refused")
    assert opened.execute_script(focus) == "H1 That did not work"


@pytest.mark.browser
def test_the_focus_stays_on_what_was_pressed_and_what_cannot_be_shown_is_said(opened, tmp_path):
    scan = encode(one_colour(1), "TIFF", save_all=True, append_images=[one_colour(0)])
    paths = save(tmp_path / "scan.tif", scan), save(tmp_path / "red.jpg", jpeg(one_colour(0)))
    give(opened, "\n".join(map(str, paths)), "#together")
    assert "further pages: 1." in seen(opened, "#together")[0]
    assert "cannot show" in seen(opened, "#unshown")[0]
    focus = "return document.activeElement.outerHTML"
    for selector in ("#photos button", ".names button"):
        button = opened.find_elements("css selector", selector)[1]
        state = re.match("<[^>]*(true|false)", button.get_attribute("outerHTML"))[1]
        button.click()
        html = opened.execute_script(focus)
        assert html.startswith("<button") and re.match("<[^>]*(true|false)", html)[1] != state


@pytest.mark.browser
def test_every_reply_and_every_failure_ends_in_a_sentence(opened, tmp_path):
    """Also replies of another version or of no page; a dropped folder is not a lost server."""
    photo = save(tmp_path / "red.jpg", jpeg(one_colour(0)))
    answer = '{"names": [{"label": 99, "probability": 0.9}], "verdict": "ok", "reason": ""}'
    seen(opened, "#start")
    opened.execute_script("window.post = backend.post")
    for status, body in ((200, answer), (200, "<p>"), (200, "null"), (422, '{"refused": "new"}')):
        opened.execute_script("""const [status, body] = arguments;
            job = null; render();
            backend.post = async () => new Response(body, {status})""", status, body)
        assert "failed" in give(opened, photo, "#refused")[0]
    opened.execute_script("""backend.post = post;
        const gone = new File([], "gone.jpg"), denied = new DOMException("", "NotReadableError");
        gone.slice = () => ({arrayBuffer: async () => { throw denied }});
        identify([gone])""")
    assert "could not be read" in seen(opened, "#refused")[0]
    give(opened, photo)
    opened.execute_script("backend.post = async () => ({refused: 'gone'})")
    opened.find_element("id", "show-heat").click()
    assert seen(opened, "#legend:not([hidden])") == ["The heat map could not be made."]
    opened.execute_script("facts = null; job = null;"
                          "backend.facts = async () => { throw new Error() }; start()")
    assert "app.py" in seen(opened, "#refused")[0]


@pytest.mark.browser
def test_who_waits_is_told_so_and_a_newer_photograph_ends_the_wait(opened, tmp_path):
    photo = save(tmp_path / "red.jpg", jpeg(one_colour(0)))
    seen(opened, "#start")
    opened.execute_script("""const ask = backend.ask; window.replies = [];
        backend.ask = async (path, body, signal) => {
          const wait = new Promise(resolve => signal.addEventListener("abort", resolve));
          if (!replies.length) { replies.push("first"); await wait; replies.push("given up") }
          return ask(path, body, signal);
        }""")
    assert give(opened, photo, "#waiting:not([hidden])") != [""]
    assert give(opened, save(tmp_path / "green.jpg", jpeg(one_colour(1))))[0].startswith(NAMES[1])
    assert opened.execute_script("return replies") == ["first", "given up"]


@pytest.mark.browser
def test_axe_finds_nothing_in_any_state(opened, tmp_path):
    """Needs the npm package axe-core; AXE_CORE names its axe.min.js."""
    if not (axe := os.environ.get("AXE_CORE")):
        pytest.skip("AXE_CORE does not name an axe.min.js")

    def problems():
        opened.execute_script(Path(axe).read_text("utf-8"))
        found = opened.execute_async_script("axe.run().then(arguments[0])")["violations"]
        return [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
    seen(opened, "#start")
    for theme in ("light", "dark"):
        opened.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        opened.execute_script("job = null; render()")
        assert problems() == []
        give(opened, save(tmp_path / "green.jpg", jpeg(one_colour(1))))
        assert problems() == []
        opened.execute_script("job.prediction.reason = 'risk'; render()")
        opened.find_element("css selector", "#wrong summary").click()
        assert problems() == []
        opened.find_element("css selector", ".names .examples button").click()
        assert problems() == []
        opened.find_element("css selector", "dialog .plain").click()
        give(opened, save(tmp_path / "notes.jpg", b"shopping list"), "#refused")
        assert problems() == []
