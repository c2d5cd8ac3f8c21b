"""The report: files, checkpoints without a temperature, and the page in a real browser."""
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config
import evaluate
import predict
import train
from model import build_model
from tests.conftest import make_labelled, on_screen, score_entry, write_classes
from tests.training_runs import evaluation_flags, make_folder, settings, write_weights
from training import checkpoints
from utils import PlantClass, read_table, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A drawn dataset of groups, and the report on a network that has learned nothing of it."""
    folder = tmp_path_factory.mktemp("evaluated")
    names = [f"Rosa {name}" for name in ("prima", "secunda", "tertia", "quarta", "quinta", "sexta")]
    make_labelled(folder / "dataset", names, train=2, test=6)
    table = folder / "dataset/test_labels.csv"
    table.write_text(re.sub(r"(test\d)(\d),", lambda found: f"{found[1]}{int(found[2]) // 2},",
                            table.read_text()))
    table = write_classes(folder / "classes.csv", names)
    table.write_text(table.read_text().replace("prima,", "prima,роза первая", 1), "utf-8")
    torch.manual_seed(0)
    checkpoints.save_checkpoint(folder / "checkpoints/some" / checkpoints.BEST, {
        "model_state_dict": build_model("plain_cnn", 6).state_dict(), "model": "plain_cnn",
        "class_names": names,
        "image_size": 64, "temperature": 0.5, "epoch": 4,
        "out_of_distribution": score_entry(6),
        "settings": {"seed": 3, "classes": []}})
    checkpoints.save_checkpoint(folder / "checkpoints/old" / checkpoints.BEST, {
        "model_state_dict": build_model("plain_cnn", 6).state_dict()})
    evaluate.main(flags(folder, "some"))
    return folder


def flags(folder, run, *more):
    return [str(flag) for flag in (
        "--class_table", folder / "classes.csv", "--dataset_dir", folder / "dataset",
        "--runs_dir", folder / "runs", "--num_workers", "0", "--device", "cpu",
        "--checkpoint", folder / "checkpoints" / run / checkpoints.BEST, *more)]


@pytest.mark.parametrize("column, expected, said", [
    (None, {"test": [0, 0, 36], "train": [0, 0, 12]}, "unknown"),
    (("yes", "no", ""), {"test": [12, 24, 36], "train": [4, 8, 12]},
     "by label_scores.csv, not decided in review: 12 of 24 judged in test, 4 of 8 judged in")])
def test_labels_in_doubt_are_counted(folder, tmp_path, column, expected, said):
    for side in ("test", "train"):
        rows = read_table(folder / f"dataset/{side}_labels.csv")
        for i, row in enumerate(rows):
            row |= {"doubtful": column[i % 3]} if column else {}
        write_table(tmp_path / f"{side}_labels.csv", list(rows[0]), rows)
    counts = evaluate.count_doubtful(tmp_path)
    assert counts == expected
    assert said in evaluate.describe_doubts(counts)
    report = json.loads((folder / "runs/some/report.json").read_text("utf-8"))
    assert report["doubtful_labels"] == {"test": [0, 0, 36], "train": [0, 0, 12]}


def data_of(page):
    """Return the data that a page holds, as the browser reads it."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"))[1])


def test_all_files_of_the_report_are_written_and_agree(folder):
    out = folder / "runs/some"
    report = json.loads((out / "report.json").read_text("utf-8"))
    predictions, classes = read_table(out / "predictions.csv"), read_table(out / "per_class.csv")
    right = sum(row["latin"] == row["predicted"] for row in predictions)
    assert len(predictions) == report["photographs"] == 36
    assert sum(row["reason"] == "" for row in predictions) == report["accepted"] < 36
    assert report["groups"] == 18
    assert report["interval_method"] == "Wilson"  # 18 groups are too few for a bootstrap
    assert report["accuracy"] == right / 36
    assert np.trace(report["confusion_matrix"]) == right
    assert [int(row["photographs"]) for row in classes] == [6] * 6
    assert [row["train"] for row in classes] == ["2"] * 6
    assert report["checkpoint_sha256"] and report["commit"] and report["settings"] == {"seed": 3}
    assert {"loss", "macro_f1", "top5", "ece_before", "ece_after",
            "accepted_accuracy"} <= set(report)

    data = data_of(out / "report.html")
    assert data["report"] == report
    assert len(data["photos"]) == 36 - right
    assert all(photo["latin"] != photo["predicted"] for photo in data["photos"])
    assert all(photo["view"].startswith("data:image/jpeg") and photo["view"] != photo["heat"]
               for photo in data["photos"])
    assert not re.search(r"(src|href)=[\"']?(http|//)", (out / "report.html").read_text("utf-8"))


def test_the_tables_are_written_before_the_heat_maps(folder, tmp_path, monkeypatch):
    """Ctrl-C while the heat maps are computed, or a fault in them, loses no number."""
    def interrupt(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(evaluate, "grad_cam", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(flags(folder, "some", "--runs_dir", tmp_path))
    for name in ("report.json", "per_class.csv", "predictions.csv", "confusion_matrix.png"):
        assert (tmp_path / "some" / name).stat().st_size > 0


def test_without_feature_maps_the_report_shows_plain_views(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("evaluation.grad_cam.to_maps", lambda *arguments: None)
    evaluate.main(flags(folder, "some", "--runs_dir", tmp_path))
    photos = data_of(tmp_path / "some/report.html")["photos"]
    assert photos and all(photo["view"] and photo["heat"] is None for photo in photos)
    assert "no heat maps" in capsys.readouterr().err


def test_the_features_that_training_has_computed_are_used(tmp_path, capsys):
    """The checkpoint stores normalisation as lists, the settings as tuples."""
    folder = make_folder(tmp_path)
    train.train(settings(folder, "--initial_weights", write_weights(folder), "--num_epochs", 1))
    assert "; 24 to compute" in capsys.readouterr().out
    evaluate.main(evaluation_flags(folder, "--cache_dir", folder / "cache"))
    assert "features of 24 photographs are in" in (printed := capsys.readouterr().out)
    assert "; 0 to compute" in printed


def test_the_picture_of_a_large_matrix_shows_the_classes_with_most_mistakes(tmp_path, monkeypatch):
    """A text for each of 1,000 x 1,000 cells took 10 GB."""
    monkeypatch.setattr("evaluation.report.MATRIX_CLASSES", 3)
    matrix = np.diag([9, 8, 7, 6, 5, 4])
    matrix[1, 4], matrix[4, 2] = 3, 2
    figure = evaluate.draw_confusion(tmp_path / "m.png", matrix, list("abcdef"))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "c", "e"]
    assert sorted(int(text.get_text()) for text in figure.axes[0].texts) == [
        0, 0, 0, 0, 2, 3, 5, 7, 8]


@pytest.mark.parametrize("flip_tta", [True, False])
def test_predict_gives_the_probabilities_and_reasons_of_the_evaluation(folder, flip_tta):
    """The checkpoint's class order, temperature, flip TTA and threshold count in both scripts."""
    checkpoint = checkpoints.load_checkpoint(folder / "checkpoints/some" / checkpoints.BEST)
    file = folder / f"checkpoints/flip_{flip_tta}" / checkpoints.BEST
    s = config.namespace(checkpoint=str(file), class_table=folder / "classes.csv", device="cpu",
                         top=6)
    photos = sorted(map(str, (folder / "dataset/test").rglob("*.jpg")))

    def run_predict(threshold):
        entry = {**checkpoint["out_of_distribution"], "threshold": threshold}
        checkpoints.save_checkpoint(file, {**checkpoint, "flip_tta": flip_tta, "temperature": 2e-3,
                                           "out_of_distribution": entry})
        return list(predict.predict(photos, predict.load_predictor(s), s))
    scores = [prediction["score"] for prediction in run_predict(-1e9)]
    predictions = run_predict(float(np.median(scores)))
    reasons = {prediction["reason"] for prediction in predictions}
    assert reasons >= {"", "out-of-distribution"}

    evaluate.main(flags(folder, file.parent.name))
    rows = read_table(folder / "runs" / file.parent.name / "predictions.csv")
    rows.sort(key=lambda row: row["path"])
    for row, prediction in zip(rows, predictions, strict=True):
        chances = {name["latin"]: name["probability"] for name in prediction["names"]}
        assert (row["predicted"], row["reason"]) == (next(iter(chances)), prediction["reason"])
        assert float(row["probability"]) == pytest.approx(chances[row["predicted"]], abs=2e-4)
        assert float(row["probability_of_latin"]) == pytest.approx(chances[row["latin"]], abs=2e-4)


def test_tensorboard_has_the_numbers_curves_and_pictures_once(folder):
    evaluate.main(flags(folder, "some"))
    assert len(list((folder / "runs/some").glob("events*"))) == 1
    events = EventAccumulator(str(folder / "runs/some"))
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {"loss/test", "accuracy/test", "macro_f1/test"}
    assert {"test/confusion_matrix"} < {tag.replace(" ", "_") for tag in tags["images"]}
    assert any(tag.startswith("test/mistakes") for tag in tags["images"])
    assert sum("Rosa" in tag for tag in tags["tensors"]) == 6


def test_a_report_states_what_an_old_checkpoint_lacks(folder, capsys):
    evaluate.main(flags(folder, "old", "--report_photos", "2"))
    assert "temperature" in capsys.readouterr().err
    report = json.loads((folder / "runs/old/report.json").read_text("utf-8"))
    assert (report["temperature"], report["threshold"], report["epoch"]) == (None, None, None)
    assert report["model"] == "plain_cnn"
    assert "ece_after" not in report
    assert len(data_of(folder / "runs/old/report.html")["photos"]) == 2


def test_without_mistakes_only_examples_are_shown(folder):
    """Without mistakes there are none to show, which is no error."""
    labels = np.arange(6).repeat(6)
    chances = np.eye(6)[labels]
    test = evaluate.Predictions(None, chances, None, labels, labels, chances, None, None)
    mistakes, examples = evaluate.choose_photographs(test, 10)
    assert len(mistakes) == 0
    assert labels[examples].tolist() == [0, 1, 2, 3, 4, 5]


# ---- the page ----

def requests_of(browser):
    """Return the addresses requested since the last call, without data: addresses."""
    sent = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = {message["params"]["request"]["url"] for message in sent
            if message["method"] == "Network.requestWillBeSent"}
    return {url for url in urls if not url.startswith("data:")}


@pytest.mark.browser
@pytest.mark.parametrize("run", ["some", "old"])
def test_the_report_needs_no_other_file_and_sorts_its_tables(folder, browser, run):
    evaluate.main(flags(folder, run))
    page = (folder / "runs" / run / "report.html").as_uri()
    requests_of(browser)
    browser.get(page)
    report = json.loads((folder / "runs" / run / "report.json").read_text("utf-8"))
    assert requests_of(browser) == {page}
    assert f"{100 * report['accuracy']:.1f} %" in browser.find_element("id", "head").text
    parts = [link.get_attribute("href").split("#")[1]
             for link in browser.find_elements("css selector", "nav a")]
    assert len(parts) > 5
    assert parts == [part.get_attribute("id")
                     for part in browser.find_elements("css selector", "section[id]")]
    plots = browser.find_elements("css selector", "#confidence figure")
    assert len(plots) == (3 if run == "some" else 2)

    heads = browser.find_elements("css selector", "#classes th button")
    rows = {row["latin"]: row for row in report["classes"]}
    for place, key in ((0, "latin"), (4, "precision"), (3, "recall")):
        for _ in range(2):
            heads[place].click()
            shown = [rows[cell.text][key]
                     for cell in browser.find_elements("css selector", "#classes td.name i")]
            head = heads[place].find_element("xpath", "..")
            upward = head.get_attribute("aria-sort") == "ascending"
            assert shown == sorted(shown, reverse=not upward)
        assert not upward

    a, b = next((a, b) for a, row in enumerate(report["confusion_matrix"])
                for b, count in enumerate(row) if a != b and count)
    browser.execute_script(
        "document.querySelector('#confusions .link').dispatchEvent(new Event('click'))")
    shown = browser.find_elements("css selector", "#mistakes .tiles figure")
    assert len(shown) == report["confusion_matrix"][a][b]
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_the_report_fits_a_phone(folder, browser, speak):
    with on_screen(browser, 360, 740, 2):
        browser.get((folder / "runs/some/report.html").as_uri())
        for language in ("ru", "en"):
            speak(language)
            assert browser.execute_script("return document.documentElement.scrollWidth") == 360


UNTRANSLATED = {"Grad", "CAM", "ECE", "TTA", "SHA", "Python", "PyTorch", "LEARNING_CURVE", "report",
                "find_label_errors", "label_scores", "predictions", "json", "csv", "py"}
SAID = """const said = [], walker = document.createTreeWalker(document.documentElement);
const away = "[lang=la], [lang=en], [translate=no], script, style";
while (walker.nextNode()) {
  const node = walker.currentNode;
  if ((node.parentElement.closest(away) ?? node.closest?.(away))) continue;
  said.push(node.nodeType === Node.TEXT_NODE ? node.data : "");
  for (const key of ["aria-label", "placeholder", "title", "alt"])
    said.push(node.getAttribute?.(key) ?? "");
}
return said.join("\\n")"""
WITHOUT_RUSSIAN = """return Object.entries({ ...TEXT, ...MADE }).filter(([, [en, ru]]) =>
  !en || !ru || typeof en !== typeof ru || !/[а-яё]/i.test(ru)).map(([key]) => key)"""


@pytest.fixture
def full(folder, tmp_path):
    """The address of a page on which everything that a report can hold is shown."""
    data, gain = data_of(folder / "runs/some/report.html"), [0.05, 0.01, 0.12]
    points = {"gain": gain, "accuracy": [[0.5, 0.4, 0.6]] * 4, "photographs": [10, 20, 40.5, 1234]}
    curve = {"draws": 4, **points, "classes": [{"label": label, **points} for label in range(6)]}
    report = {**data["report"], "learning_curve": curve,
              "unknown": {"named": 0.2, "photographs": 40},
              "limits_from": {"source": "out-of-fold", "photographs": 1200},
              "sets": {"coverage": 0.953, "mean_size": 1.75},
              "doubtful_labels": {"test": [3, 9, 36], "train": [1, 12, 12]},
              "classes": [{**row, "set_coverage": 0.9, "set_size": 1.5}
                          for row in data["report"]["classes"]]}
    pictures = [np.zeros((64, 64, 3), dtype=np.uint8)] * len(data["photos"])
    rows = [{key: value for key, value in photo.items() if key not in ("view", "heat")}
            for photo in data["photos"]]
    classes = [PlantClass(**one) for one in data["names"]]
    evaluate.write_page(tmp_path / "report.html", report, classes, rows, pictures, pictures,
                        dict(enumerate(pictures[:6])))
    return (tmp_path / "report.html").as_uri()


@pytest.fixture
def speak(browser):
    """Return a function that switches an open page to a language, by the keyboard."""
    def switch(language):
        button = browser.find_element("css selector", f"#languages [lang={language}]")
        button.send_keys("\ue007")  # Enter
        assert browser.switch_to.active_element == button
        assert button.get_attribute("aria-pressed") == "true"
        assert browser.find_element("tag name", "html").get_attribute("lang") == language
    yield switch
    browser.execute_script("localStorage.clear()")


@pytest.mark.browser
def test_every_text_of_the_page_has_its_russian(folder, full, browser, speak):
    evaluate.main(flags(folder, "old"))
    for page in ((folder / "runs/some/report.html").as_uri(),
                 (folder / "runs/old/report.html").as_uri(), full):
        browser.get(page)
        speak("ru")
        report, names = browser.execute_script("return [report, names]")
        latin = {"RU", report["run"], *(word for one in names for word in one["latin"].split())}
        russian, share = browser.execute_script(SAID), f"{100 * report['accuracy']:.1f} %"
        assert set(re.findall("[A-Za-z_]{2,}", russian)) <= UNTRANSLATED | latin
        assert not re.search(r"\d\.\d", russian)
        assert share.replace(".", ",") in browser.find_element("id", "head").text
        speak("en")
        english = browser.execute_script(SAID.replace("lang=en", "lang=ru"))
        assert not re.search("[А-яЁё]|undefined|object ", english)
        assert share in browser.find_element("id", "head").text
    assert browser.execute_script(WITHOUT_RUSSIAN) == [
        "range", "mistakenFor", "f1", "cellWrong"]  # these are figures and arrows
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_menus_wrap_and_figures_keep_their_percent_sign(full, browser, speak):
    browser.get(full)
    with on_screen(browser, 1100, 740, mobile=False):
        for language in ("ru", "en"):
            speak(language)
            text = browser.execute_script("return main.textContent")
            assert not re.search(r"\d %", browser.execute_script(SAID))
            no_sets = "Наборов названий нет" if language == "ru" else "no sets of names"
            assert ("абор" in text or "Sets" in text) and no_sets not in text
            assert browser.execute_script("""const menu = document.querySelector("nav > div");
                return menu.scrollWidth - menu.clientWidth""") == 0
            few = browser.execute_script("""const sets = report.sets; report.sets = null; render();
                const text = document.getElementById("answers").textContent;
                report.sets = sets; render(); return text""")
            assert no_sets in few


@pytest.mark.browser
def test_the_language_is_kept_and_names_are_russian_where_known(full, browser, speak):
    browser.get(full)
    browser.find_element("css selector", "#mistakes input").send_keys("rosa")
    speak("ru")
    assert browser.find_element("css selector", "#mistakes input").get_attribute("value") == "rosa"
    browser.refresh()
    assert browser.title.startswith("Отчёт")
    shown = browser.find_element("css selector", "#classes tbody").text
    assert "роза первая\nRosa prima" in shown
    assert "Rosa tertia" in shown
    browser.execute_script("localStorage.clear()")
    agent = browser.execute_script("return navigator.userAgent")
    for accepted, language in (("ru-RU,ru", "ru"), ("en-US,en", "en")):
        browser.execute_cdp_cmd("Network.setUserAgentOverride",
                                {"userAgent": agent, "acceptLanguage": accepted})
        browser.refresh()
        assert browser.find_element("tag name", "html").get_attribute("lang") == language


@pytest.mark.browser
def test_the_matrix_is_read_by_the_keyboard(full, browser):
    browser.get(full)
    cells = browser.find_elements("css selector", "#confusions .link")
    assert [cell.get_attribute("tabindex") for cell in cells] == ["0"] + ["-1"] * (len(cells) - 1)
    browser.execute_script("arguments[0].focus()", cells[0])
    browser.switch_to.active_element.send_keys("\ue014")  # right
    assert browser.switch_to.active_element == cells[1]
    browser.switch_to.active_element.send_keys("\ue007")  # Enter
    count = int(cells[1].get_attribute("aria-label").split()[-1])
    assert len(browser.find_elements("css selector", "#mistakes .tiles figure")) == count


@pytest.mark.browser
def test_axe_finds_nothing_in_either_language(full, browser, speak):
    """Needs the npm package axe-core; AXE_CORE names its axe.min.js."""
    if not (axe := os.environ.get("AXE_CORE")):
        pytest.skip("AXE_CORE does not name an axe.min.js")
    browser.get(full)
    browser.execute_script(Path(axe).read_text("utf-8"))
    for language in ("ru", "en"):
        speak(language)
        found = browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


@pytest.mark.browser
def test_html_in_names_is_shown_as_text(folder, browser, tmp_path):
    data = data_of(folder / "runs/some/report.html")
    evil = ("</script><script>document.title = 'owned'</script>"
            "<img src=x onerror=\"document.title='owned'\">")
    classes = [PlantClass(label, evil, evil, evil, ()) for label in range(6)]
    pictures = [np.zeros((64, 64, 3), dtype=np.uint8)] * len(data["photos"])
    rows = [{**photo, "path": evil, "latin": evil, "predicted": evil} for photo in data["photos"]]
    for row in rows:
        del row["view"], row["heat"]
    report = {**data["report"], "run": evil,
              "classes": [{**row, "latin": evil} for row in data["report"]["classes"]]}
    evaluate.write_page(tmp_path / "report.html", report, classes, rows, pictures, pictures, {})
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.title.endswith(evil)
    assert browser.get_log("browser") == []
