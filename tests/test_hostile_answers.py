"""Files, folders, tables and streams that would mislead predict.py or end it without a sentence."""
import copy
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

import config
from evaluation.out_of_distribution import fit_statistics, score_parts, standardize
from evaluation.prediction_output import escape_controls, write_rows
from evaluation.predictor import load_predictor
from predict import main
from tests.conftest import NAMES, ROOT
from utils import InputError, PlantClass

POSIX = pytest.mark.skipif(sys.platform != "linux", reason="as the system's file names are")


def flags(folder, *more):
    return [*map(str, ("--checkpoint", folder / "plants_model.pth.tar",
                       "--class_table", folder / "classes.csv", *more))]


# ---- what a file says about its network ----

DAMAGES = [  # (keys on the way to the value, the value, what the message names)
    (("mean",), (0.5, 0.5), "mean"), (("mean",), ("x", 0.5, 0.5), "mean"),
    (("std",), (0.5, 0.5, float("inf")), "std"), (("std",), (0.5, 0.5, -1.0), "std"),
    (("temperature",), 10**400, "temperature"), (("image_size",), 10**400, "image_size"),
    (("classes",), [{"latin": name} for name in NAMES[:2]], "class_names differ"),
    (("classes",), [{"latin": name} for name in reversed(NAMES)], "class_names differ"),
    (("classes",), [{"latin": name, "russian": "\ud800"} for name in NAMES], "classes"),
    (("classes",), [{"latin": name, "picture": []} for name in NAMES], "classes"),
    (("unknown",), {"named": 0.5, "photographs": "many"}, "unknown"),
    (("unknown",), {"named": 0.5}, "unknown"),
    (("out_of_distribution", "center"), None, "out_of_distribution"),
    (("out_of_distribution", "means"), torch.ones(7, 7), "out_of_distribution"),
    (("out_of_distribution", "offsets"), torch.ones(7), "out_of_distribution"),
    (("out_of_distribution", "basis"), 0.5, "out_of_distribution")]


def test_what_does_not_fit_a_network_is_one_sentence(trained, tmp_path):
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
    features = np.random.default_rng(0).normal(1, 1, (30, 256))
    statistics = fit_statistics(features, np.arange(30) % 3)
    statistics = standardize(statistics, score_parts(statistics, features[None].astype("f")))
    checkpoint["out_of_distribution"] = {**statistics, "threshold": -1e9}
    path = tmp_path / "plants_model.pth.tar"
    s = config.namespace(checkpoint=str(path), device="cpu")
    torch.save(checkpoint, path)
    assert load_predictor(s).outputs(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 4)
    for (*parts, key), value, named in DAMAGES:
        damaged = copy.deepcopy(checkpoint)
        (damaged[parts[0]] if parts else damaged)[key] = value
        torch.save(damaged, path)
        with pytest.raises(InputError, match=named) as raised:
            load_predictor(s)
        assert str(path) in str(raised.value)


@pytest.mark.parametrize("entry", [{}, {"means": torch.ones(3, 256), "weight": 1.0}])
def test_a_score_without_a_threshold_is_as_none(trained, tmp_path, capsys, entry):
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
    torch.save({**checkpoint, "out_of_distribution": entry}, tmp_path / "plain.pth.tar")
    main([str(trained / "photos/a.jpg"), "--checkpoint", str(tmp_path / "plain.pth.tar")])
    assert "no out-of-distribution threshold" in capsys.readouterr().err


def test_a_class_table_takes_no_caution_away(trained, tmp_path, capsys):
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
    checkpoint["classes"] = [{"latin": name, "english": "rose", "note_en": "Thorns.",
                              "genus": "Rosae", "russian": ""} for name in NAMES]
    torch.save(checkpoint, tmp_path / "noted.pth.tar")
    rows = "".join(f"{label},{name},роза,,\n" for label, name in enumerate(NAMES))
    (tmp_path / "names.csv").write_text("label,latin,russian,english,also\n" + rows, "utf-8")
    main([str(trained / "photos/a.jpg"), "--checkpoint", str(tmp_path / "noted.pth.tar"),
          "--class_table", str(tmp_path / "names.csv"), "--format", "json"])
    printed, said = capsys.readouterr()
    name = json.loads(printed)[0]["names"][0]
    assert (name["russian"], name["english"], name["note_en"]) == ("роза", "rose", "Thorns.")
    assert "names.csv" in said


@pytest.mark.parametrize("verdict, reason", [("ok", ""), ("genus", "risk"), ("not sure", "risk"),
                                             ("not sure", "out-of-distribution")])
def test_a_caution_stands_below_every_name_that_is_shown(capsys, verdict, reason):
    classes = [PlantClass(0, "Conium maculatum", "", "")]
    names = [{"latin": latin, "russian": "", "english": "", "probability": 0.5, **note}
             for latin, note in (("Conium maculatum", {"note_en": "Deadly."}),
                                 ("Cicuta virosa", {"note_ru": "Смертельно."}),
                                 ("Conium x", {"note_en": "Deadly."}))]
    write_rows([{"photo": "a.jpg", "verdict": verdict, "reason": reason, "names": names,
                 "scientificName": "Conium"}], type("Predictor", (), {"classes": classes}))
    printed = capsys.readouterr().out
    assert printed.count("caution: Deadly.") == 1
    assert ("caution: Смертельно." in printed) == (reason != "out-of-distribution")


# ---- streams ----

@POSIX
def test_json_is_utf_8_whatever_a_file_is_called(trained, tmp_path, capsys):
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(name, "wb") as file:
        file.write((trained / "photos/a.jpg").read_bytes())
    main([os.fsdecode(name), "--format", "json", *flags(trained)])
    answer, = json.loads(capsys.readouterr().out.encode("utf-8"))
    assert os.fsencode(answer["photo"]) == name
    assert escape_controls("\u202egpj.a\u2066") == "\\u202egpj.a\\u2066"  # turn a line round


SCRIPT = "import sys; from utils import run; run(lambda: (sys.stdin.read(), {}))"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("code, status, said", [
    ("print(1)", 0, ""), ("print(1, flush=True)", 1, "error: the program that read the output")])
def test_output_that_nobody_reads_is_no_error_once_all_is_done(code, status, said):
    with subprocess.Popen([sys.executable, "-c", SCRIPT.format(code)], cwd=ROOT, env=ENVIRONMENT,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        process.stdin.close()
        printed = process.stderr.read()
        assert (process.wait(), printed[:len(said) or None]) == (status, said)
    assert "Exception ignored" not in printed


@POSIX
@pytest.mark.parametrize("stream", ["<", ">", "2>"])
def test_a_closed_stream_is_as_an_empty_file(stream):
    script = SCRIPT.format("sys.stdout.reconfigure(), print(1), print(2, file=sys.stderr)")
    done = subprocess.run(f"{shlex.join([sys.executable, '-c', script])} {stream}&-", shell=True,
                          cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    expected = "" if stream == ">" else "1\n", "" if stream == "2>" else "2\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, *expected)
