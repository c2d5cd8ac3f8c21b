"""predict.py: which files it reads, what it prints, and files that are not photographs."""
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import config
from evaluation.inference import collect_logits
from evaluation.prediction_output import qualifier_of
from evaluation.predictor import Predictor, load_predictor
from image_metadata import read_position
from images import View, evaluation_view
from model import build_model
from predict import find_photos, interpret, main, predict, read_view
from tests.conftest import ROOT, draw, jpeg, one_colour, run_measured, run_script
from utils import InputError, PlantClass


def flags(folder):
    return "--checkpoint", folder / "plants_model.pth.tar", "--class_table", folder / "classes.csv"


def settings(folder, **changes):
    return config.namespace(checkpoint=str(folder / "plants_model.pth.tar"),
                            class_table=folder / "classes.csv", **changes)


def test_table_names_every_photograph_and_every_language(trained):
    done = run_script("predict.py", trained / "photos", *flags(trained), "--top", 1)
    lines = done.stdout.splitlines()
    assert [line[:24].strip() for line in lines] == ["sure"] * 3
    assert [line[24:].split(str(trained))[0].split()[2:] for line in lines] == [
        ["Rosa", "prima", "роза", "первая", "first", "rose"],
        ["Rosa", "secunda", "роза", "вторая", "second", "rose"], ["Rosa", "tertia"]]
    assert [line.split("/")[-1] for line in lines] == ["a.jpg", "b.PNG", "c.webp"]
    assert "3 photographs: 3 named, 0 not sure" in done.stderr


def test_bad_files_are_reported_and_the_rest_is_named(trained, tmp_path, capsys):
    (tmp_path / "cut.jpg").write_bytes(jpeg(one_colour(0))[:300])
    (tmp_path / "empty.jpg").touch()
    files = [tmp_path / "cut.jpg", trained / "photos/a.jpg", tmp_path / "empty.jpg",
             tmp_path / "gone.jpg", trained / "photos/notes.txt", tmp_path / "no*.jpg",
             trained / "photos/b.PNG"]
    for form in ("csv", "json", "table"):
        with pytest.raises(InputError, match="5 of 7 could not be read"):
            main([*map(str, [*files, *flags(trained)]), "--format", form, "--top", "2"])
        printed, said = capsys.readouterr()
        for name, reason in (("cut.jpg", "broken"), ("empty.jpg", "empty file"),
                             ("gone.jpg", "no such file"), ("notes.txt", "not a picture"),
                             ("no*.jpg", "no such file")):
            assert f"{name}: {reason}" in said
        assert said.endswith("2 photographs: 2 named, 0 not sure\n")
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO(printed)))
            assert [row["verdict"] for row in rows] == [
                "error", "ok", "ok", *["error"] * 4, "ok", "ok"]
            assert [(row["rank"], row["latin"]) for row in rows if row["rank"] == "1"] == [
                ("1", "Rosa prima"), ("1", "Rosa secunda")]
            assert rows[1]["russian"] == "роза первая"
            assert float(rows[1]["probability"]) > float(rows[2]["probability"])
        elif form == "json":
            answers = json.loads(printed)
            assert [one["photo"] for one in answers] == [str(file) for file in files]
            assert [len(one.get("names", ())) for one in answers] == [0, 2, 0, 0, 0, 0, 2]
        else:
            assert len(printed.splitlines()) == 4


def test_one_photograph_is_not_several_and_none_is_not_counted(trained, capsys):
    main([str(trained / "photos/a.jpg"), *map(str, flags(trained))])
    assert capsys.readouterr().err.endswith("\n1 photograph: 1 named, 0 not sure\n")
    with pytest.raises(InputError, match="1 of 1 could not be read"):
        main(["gone.jpg", *map(str, flags(trained))])
    assert "photograph:" not in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="names have no newline on Windows")
def test_a_newline_in_a_name_stays_on_the_line_of_its_photograph(trained, tmp_path, capsys):
    one_colour(0).save(tmp_path / "a\nb.png")
    (tmp_path / "c\nd.png").touch()
    with pytest.raises(InputError, match="1 of "):
        main([str(tmp_path), *map(str, flags(trained)), "--top", "1"])
    printed, said = capsys.readouterr()
    assert [line.endswith(f"{tmp_path}/a\\nb.png") for line in printed.splitlines()] == [True]
    assert f"error: {tmp_path}/c\\nd.png: empty file\n" in said
    (tmp_path / "a\nb.png").rename(tmp_path / "a\rb.png")
    main([str(tmp_path / "a\rb.png"), *map(str, flags(trained)), "--top", "1", "--format", "csv"])
    row, = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert row["photo"] == f"{tmp_path}/a\rb.png"


def test_a_list_on_standard_input_and_flags_between_photographs(trained, monkeypatch, capsys):
    listed = f"{trained / 'photos/a.jpg'}\r\n\n{trained / 'photos/deep'}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    main(["-", "--format", "json", *map(str, [trained / "photos/b.PNG", *flags(trained)])])
    assert [one["names"][0]["latin"] for one in json.loads(capsys.readouterr().out)] == [
        "Rosa prima", "Rosa tertia", "Rosa secunda"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
def test_names_that_are_not_text_come_out_as_they_went_in(trained, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xd0\xb6.jpg"
    with open(name, "wb") as file:
        file.write(jpeg(one_colour(1)))
    command = [sys.executable, str(ROOT / "predict.py"), "-", *map(str, flags(trained)),
               "--format", "csv"]
    done = subprocess.run(command, input=name + b"\n", capture_output=True, check=True)
    assert done.stdout.splitlines()[1].startswith(name)


def test_missing_input_and_wrong_options_are_reported(trained, tmp_path):
    with pytest.raises(InputError, match="no photographs found"):
        main([str(tmp_path), *map(str, flags(trained))])
    with pytest.raises(InputError, match="export.py"):
        main(["a.jpg", "--onnx", str(tmp_path / "gone.onnx")])
    with pytest.raises(InputError, match="not an ONNX file"):
        main(["a.jpg", "--onnx", str(trained / "classes.csv")])
    with pytest.raises(SystemExit):
        main(["a.jpg", "--format", "xml"])
    assert "photos" in run_script("predict.py", status=2).stderr


def test_photographs_are_found_in_the_order_of_the_arguments(trained, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x.jpg\r\n-\n")))
    photos, long = trained / "photos", 300 * "x"  # longer than a file's name may be
    found = list(find_photos([str(photos), "-", str(photos / "**/*.webp"), "nothing[1].jpg", long]))
    c = str(photos / "deep/c.webp")
    assert found == [str(photos / "a.jpg"), str(photos / "b.PNG"), c, "x.jpg", c,
                     "nothing[1].jpg", long]


def test_logits_are_those_of_evaluation(trained):
    """The logits are those of evaluation from the same checkpoint, with and without flip TTA."""
    paths = sorted(path for path in (trained / "photos").rglob("*.*") if path.suffix != ".txt")
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
    model = build_model("plain_cnn", 3)
    model.load_state_dict(checkpoint["model_state_dict"])
    for flip_tta in (False, True):
        s = settings(trained, flip_tta=flip_tta)
        predictor = load_predictor(s)
        views = np.stack([read_view(path, View(64), s) for path in paths])
        images = (torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        expected, _ = collect_logits(model, [(images, torch.arange(len(images)))], flip_tta)
        assert np.abs(predictor.outputs(views)[:, :3] - expected).max() < 1e-4
        assert np.array_equal(read_view(paths[0].read_bytes(), View(64), s), views[0])
    assert predictor.temperature == 1.5
    assert [plant[1:4] for plant in predictor.classes[:2]] == [
        ("Rosa prima", "роза первая", "first rose"), ("Rosa secunda", "роза вторая", "second rose")]


def test_verdicts_and_reasons_follow_confidence_and_score(trained):
    classes = [PlantClass(0, "A", "а", "a"), PlantClass(1, "B", "", ""), PlantClass(2, "C", "", "")]
    predictor = Predictor(None, classes, 64, 2.0, 1.5, True, None)
    s = SimpleNamespace(top=2, max_risk=0.2)
    outputs = np.array([[0, 9, 0, 2.0], [5, 4.5, 0, 1.5], [0, 9, 0, 1.25]])
    sure, unsure, outside = interpret(outputs, predictor, s)
    assert (sure["verdict"], sure["reason"], sure["names"][0]["latin"]) == ("ok", "", "B")
    probability = np.exp(4.5) / (np.exp(4.5) + 2)  # logits 0, 9, 0 over the temperature 2
    assert sure["names"][0]["probability"] == pytest.approx(probability, abs=1e-4)
    assert (unsure["verdict"], unsure["reason"]) == ("not sure", "risk")
    assert [name["label"] for name in unsure["names"]] == [0, 1]
    assert [name["latin"] for name in unsure["names"]] == ["A", "B"]
    assert (outside["verdict"], outside["reason"]) == ("not sure", "out-of-distribution")
    assert outside["score"] == 1.25
    old = predictor._replace(ood_threshold=None)
    assert interpret(np.array([[0, 9, 0, 1.25]]), old, s)[0]["verdict"] == "ok"


def test_published_checkpoint_has_the_names_of_the_class_table(trained, tmp_path, capsys):
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
    published = {f"model.{key}": value for key, value in checkpoint["model_state_dict"].items()}
    torch.save({"model_state_dict": published, "epoch": 3}, tmp_path / "old.pth.tar")
    main([*map(str, [trained / "photos/a.jpg", *flags(trained),
                     "--checkpoint", tmp_path / "old.pth.tar"]),
          "--image_size", "64", "--format", "json", "--mean", "(0.5, 0.5, 0.5)",
          "--std", "(0.5, 0.5, 0.5)"])
    printed, said = capsys.readouterr()
    assert json.loads(printed)[0]["names"][0]["latin"] == "Rosa secunda"  # label 0 there
    assert "out-of-distribution threshold" in said


def test_a_view_is_an_average_of_all_pixels():
    """libjpeg scales otherwise than by averaging, and no browser does what it does."""
    picture = jpeg(draw(0, (1500, 1200), detail=90))
    expected = evaluation_view(Image.open(io.BytesIO(picture)), View(64))
    assert np.array_equal(read_view(picture, View(64), config.namespace()), expected)


def test_large_files_are_not_read(trained, tmp_path):
    s = settings(trained, max_file_mb=0.001, max_megapixels=0.01)
    (tmp_path / "large.jpg").write_bytes(jpeg(one_colour(0, (500, 500))))
    one_colour(0, (200, 200)).quantize(4).save(tmp_path / "wide.png")
    with pytest.raises(InputError, match="larger than 0.001 MB"):
        read_view(tmp_path / "large.jpg", View(64), s)
    with pytest.raises(InputError, match="too large: 200 x 200"):
        read_view(tmp_path / "wide.png", View(64), s)


def test_any_number_of_photographs_in_bounded_memory(trained):
    """Photographs are taken one batch at a time, the next one after the predictions of the last."""
    s, taken = settings(trained, batch_size=4), []

    def endless():
        while True:
            taken.append(1)
            yield str(trained / "photos/a.jpg")
    answers = predict(endless(), load_predictor(s), s)
    for _ in range(10):
        assert next(answers)["verdict"] == "ok"
    assert len(taken) == 12


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the peak is named by POSIX")
def test_four_times_the_photographs_need_no_more_memory(trained, tmp_path):
    """Keeping 6,000 views would need 74 MB; the allocator's pools vary the peak by up to 35 MB."""
    photo = trained / "photos/a.jpg"
    peaks = [run_measured(tmp_path, "predict.py", *[photo] * count, *flags(trained),
                          "--format", "csv")[1] for count in (2000, 8000)]
    assert peaks[1] < peaks[0] + 55


# ---- one plant, tables, what is left out ----

def test_photographs_of_one_folder_get_one_answer(trained, tmp_path, capsys):
    for plant in (0, 2):
        (tmp_path / f"plant{plant}").mkdir()
        for i in range(3):
            one_colour(plant, (80 + i, 70)).save(tmp_path / f"plant{plant}/{i}.png")
    (tmp_path / "plant0/broken.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match="1 of 3"):
        main([str(tmp_path), *map(str, flags(trained)), "--together", "--format", "json"])
    printed, said = capsys.readouterr()
    answers = [one for one in json.loads(printed) if one["verdict"] != "error"]
    assert [one["names"][0]["latin"] for one in answers] == ["Rosa prima", "Rosa tertia"]
    assert [one["photo"][-3:] for one in answers] == ["(3)", "(3)"]
    assert "2 plants: 2 named" in said
    main([str(tmp_path / "plant0/0.png"), *map(str, flags(trained)), "--format", "json"])
    alone = json.loads(capsys.readouterr().out)[0]["names"][0]["probability"]
    assert answers[0]["names"][0]["probability"] >= alone  # more evidence, more sure


def test_darwin_core_terms_and_observations_of_a_table(trained, tmp_path, capsys):
    for name, day, north, latitude, status in (
            ("a/1.jpg", 5, "S", (44.0, 30.0, 18.0), "A"), ("b/2.jpg", 4, "N", (0.0, 0.0, 0.0), "V"),
            ("b/3.jpg", 4, "N", (95.0, 0.0, 0.0), "A")):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"2026:05:0{day} 10:00:00"
        exif.get_ifd(0x8825).update(
            {1: north, 2: latitude, 3: "E", 4: (34.0, 0.0, 36.0), 9: status})
        (tmp_path / name).parent.mkdir(exist_ok=True)
        one_colour(0, (80 + int(name[2]), 70)).save(tmp_path / name, exif=exif)
    shutil.copy(trained / "photos/b.PNG", tmp_path)
    (tmp_path / "walk.csv").write_text(
        "path,observation\na/1.jpg,o1\nb.PNG,\nb/2.jpg,o1\nb\\3.jpg,o2\n")
    main([str(tmp_path / "walk.csv"), *map(str, flags(trained)), "--together", "--format", "csv",
          "--top", "1"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["photo"] for row in rows] == ["o1 (2)", f"{tmp_path / 'b.PNG'} (1)", "o2 (1)"]
    terms = ("eventDate", "decimalLatitude", "decimalLongitude")
    assert [tuple(row[term] for term in terms) for row in rows] == [
        ("2026-05-04T10:00:00/2026-05-05T10:00:00", "-44.505", "34.01"), ("", "", ""),
        ("2026-05-04T10:00:00", "", "")]
    assert [row["scientificName"] for row in rows] == ["Rosa prima", "Rosa secunda", "Rosa prima"]


def test_observations_of_two_tables_and_empty_cells_are_different_plants(trained, tmp_path, capsys):
    for name in ("a.jpg", "b.PNG", "deep/c.webp"):
        shutil.copy(trained / "photos" / name, tmp_path)
    (tmp_path / "one.csv").write_text("path,observation\na.jpg,1\nc.webp, \nb.PNG, \n")
    (tmp_path / "two.csv").write_text("path,observation\nb.PNG,1\nb.PNG,2\n")
    tables = [str(tmp_path / name) for name in ("one.csv", "two.csv")]
    main([*tables, *map(str, flags(trained)), "--together", "--format", "json"])
    assert [(one["photo"], one["scientificName"]) for one in json.loads(capsys.readouterr().out)
            ] == [(f"1 of {tables[0]} (1)", "Rosa prima"),
                  (f"{tmp_path / 'c.webp'} (1)", "Rosa tertia"),
                  (f"{tmp_path / 'b.PNG'} (1)", "Rosa secunda"),
                  (f"1 of {tables[1]} (1)", "Rosa secunda"), ("2 (1)", "Rosa secunda")]


def test_gps_coordinates_of_zero_are_no_position():
    """Beside the fixes above: a receiver without one may write 0, 0 and no status."""
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)})
    data = io.BytesIO()
    one_colour(0).save(data, "JPEG", exif=exif)
    assert read_position(Image.open(data)) is None


def test_the_likeliest_species_qualifies_a_genus():
    names = ("Acer campestre", "Rosa alba", "Rosa canina")
    classes = [PlantClass(label, name, "", "") for label, name in enumerate(names)]
    genera = np.array([name.split()[0] for name in names])
    assert qualifier_of("Rosa", "genus", classes, genera, [0, 2, 1]) == "cf. canina"
    assert qualifier_of("Rosa canina", "species", classes, np.array(names), [2, 1, 0]) == ""


def test_other_files_in_a_folder_are_counted(trained, capsys):
    main([str(trained / "photos"), *map(str, flags(trained))])
    assert "left out: 1 .txt file\n" in capsys.readouterr().err


def test_the_first_page_of_a_scan_is_named_and_the_others_are_counted(trained, tmp_path, capsys):
    pages = [one_colour(label) for label in (1, 0, 2)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "film.gif", save_all=True, append_images=pages[1:])
    main([str(tmp_path / "scan.tif"), *map(str, flags(trained)), "--format", "json"])
    prediction, = json.loads(capsys.readouterr().out)
    assert (prediction["scientificName"], prediction["further_pages"]) == ("Rosa secunda", 2)
    for more in ((), ("--together",)):
        with pytest.raises(InputError, match="1 of "):
            main([str(tmp_path), *more, *map(str, flags(trained))])
        err = capsys.readouterr().err
        assert "film.gif: 2 frames or more" in err and "left out: 2 further pages" in err


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_in_a_circle_yield_each_photograph_once(trained, tmp_path):
    one_colour(0).save(tmp_path / "a.jpg")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/up").symlink_to(tmp_path)
    assert list(find_photos([str(tmp_path / "**/*.jpg")])) == [str(tmp_path / "a.jpg")]


def test_the_excel_format_has_a_byte_order_mark_and_escapes_formulas(
        trained, tmp_path, monkeypatch, capsys):
    one_colour(0).save(tmp_path / "=1+1.png")
    monkeypatch.chdir(tmp_path)
    main(["=1+1.png", *map(str, flags(trained)), "--format", "excel", "--top", "1"])
    text = capsys.readouterr().out
    assert text.startswith("\ufeffphoto,verdict")
    row, = csv.DictReader(io.StringIO(text[1:]))
    assert row["photo"] == "'=1+1.png"
    assert (row["scientificName"], row["taxonRank"]) == ("Rosa prima", "species")
    assert 0 < float(row["probability"]) < 1


def test_the_excel_format_has_the_decimal_mark_of_the_locale(
        trained, tmp_path, monkeypatch, capsys):
    one_colour(0).save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), *map(str, flags(trained)), "--top", "1", "--format"]
    main([*arguments, "csv"])
    plain, = csv.DictReader(io.StringIO(capsys.readouterr().out))
    monkeypatch.setattr("locale.localeconv", lambda: {"decimal_point": ","})
    main([*arguments, "excel"])
    text = capsys.readouterr().out
    assert text.startswith("\ufeffphoto;verdict")
    row, = csv.DictReader(io.StringIO(text[1:]), delimiter=";")
    assert row == {key: value.replace(".", ",") if key in ("probability", "score", "confidence")
                   else value for key, value in plain.items()}
    main([*arguments, "csv"])
    assert capsys.readouterr().out.startswith("photo,verdict")


def test_names_behind_two_hyphens_are_files_and_a_closed_pipe_is_no_error(trained, tmp_path):
    one_colour(0).save(tmp_path / "-x.png")
    done = run_script("predict.py", *flags(trained), "--", "-x.png", cwd=tmp_path)
    assert "Rosa prima" in done.stdout
    photo = trained / "photos/a.jpg"
    command = [sys.executable, str(ROOT / "predict.py"), *[str(photo)] * 3000,
               *map(str, flags(trained)), "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait() == 0, said
    assert "error" not in said


def test_a_network_whose_outputs_are_no_numbers_is_an_error(trained, tmp_path):
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
    checkpoint["model_state_dict"]["18.bias"][0] = float("nan")
    torch.save(checkpoint, tmp_path / "nan.pth.tar")
    with pytest.raises(InputError, match="18.bias"):
        main([str(trained / "photos/a.jpg"), "--checkpoint", str(tmp_path / "nan.pth.tar")])
    predictor = load_predictor(settings(trained))
    with pytest.raises(InputError, match="plants_model.pth.tar"):
        interpret(np.array([[0, np.nan, 0, 1.0]]), predictor, settings(trained))


def test_a_photograph_of_something_else_gets_no_percentage_and_no_first_name(trained, tmp_path,
                                                                             capsys):
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
    checkpoint["out_of_distribution"]["threshold"] = 1e8
    torch.save(checkpoint, tmp_path / "strict.pth.tar")
    main([str(trained / "photos/a.jpg"), "--checkpoint", str(tmp_path / "strict.pth.tar")])
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("none of these; nearest:")
    assert "%" not in line
