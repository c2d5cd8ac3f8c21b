"""Files, folders, tables and streams that could mislead predict.py or crash it."""
import copy
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import config
from evaluation.prediction_output import write_rows
from evaluation.predictor import load_predictor
from names import escape_controls
from predict import find_photos, main
from tests.conftest import NAMES, ROOT, one_colour
from utils import InputError, PlantClass, run, warn

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


def test_a_file_that_does_not_fit_its_network_is_an_error_of_one_sentence(trained, tmp_path):
    checkpoint = torch.load(trained / "plants_model.pth.tar", weights_only=True)
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
def test_a_checkpoint_without_a_threshold_predicts_with_a_warning(trained, tmp_path, capsys, entry):
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


FORGED = "A\x1b[31m\nsure   99.9 %  Safe plant\x07\u200f"


@pytest.mark.parametrize("verdict", ["ok", "genus", "family", "not sure"])
def test_no_text_of_a_foreign_network_forges_a_line(verdict, capsys):
    name = {**dict.fromkeys(("latin", "russian", "english", "note_en"), FORGED), "probability": 0.9}
    write_rows([{"photo": FORGED, "verdict": verdict, "reason": "", "names": [name],
                 "scientificName": FORGED}],
               SimpleNamespace(classes=[PlantClass(0, FORGED, FORGED, FORGED)]))
    printed = capsys.readouterr().out
    assert len(printed.split("\n")) == 3 and not set("\x1b\x07\u200f") & set(printed)


@pytest.mark.parametrize("error", [InputError(FORGED), OSError(2, "no such file", FORGED)])
def test_no_text_of_a_message_changes_the_terminal(error, capsys):
    def fail():
        warn(FORGED)
        raise error
    with pytest.raises(SystemExit):
        run(fail)
    assert not set("\x1b\x07\u200f") & set(capsys.readouterr().err)


# ---- which photographs ----

def test_a_pattern_stands_for_folders_as_in_a_shell(tmp_path):
    for name in ("a/1.jpg", "a/notes.txt", "b/deep/2.jpg", "3.jpg", "a/._1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    counts = {"._ file of macOS": 0, ".txt file": 0, "linked folder": 0}

    def found(pattern):
        return [str(Path(path).relative_to(tmp_path)) for path in
                find_photos([str(tmp_path / pattern)], counts)]
    assert found("*") == ["3.jpg", "a/1.jpg", "b/deep/2.jpg"]
    assert found("[ab]") == ["a/1.jpg", "b/deep/2.jpg"]
    assert found("**/*") == ["3.jpg", "a/1.jpg", "a/notes.txt", "b/deep/2.jpg"]
    assert found("**/nothing") == ["**/nothing"]
    assert found("**/dee*") == ["**/dee*"]
    assert counts == {"._ file of macOS": 2, ".txt file": 2, "linked folder": 0}


@POSIX
def test_paths_that_are_no_files_are_reported_by_kind(trained, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "table.csv").write_text("path,observation\ndeep.jpg,1\n")
    (tmp_path / "deep.jpg").mkdir()
    with pytest.raises(InputError, match="2 of 2"):
        main([str(tmp_path / "**/*.jpg"), *flags(trained)])
    said = capsys.readouterr().err
    assert "pipe.jpg: no regular file" in said
    assert "gone.jpg: no such file" in said
    with pytest.raises(InputError, match="1 of 1"):
        main([str(tmp_path / "table.csv"), "--together", *flags(trained)])
    assert "deep.jpg: a folder" in capsys.readouterr().err


@POSIX
def test_a_folder_that_cannot_be_read_is_named(trained, tmp_path, capsys, monkeypatch):
    """A path longer than the system takes is one that even root cannot read."""
    one_colour(0).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        Path(250 * "x").mkdir()
        os.chdir(250 * "x")
    os.chdir(tmp_path)
    main([str(tmp_path), *flags(trained)])
    said = capsys.readouterr().err
    assert "File name too long; left out" in said
    assert "left out: 1 unreadable folder\n" in said


def test_a_list_on_standard_input_may_be_separated_by_zero_bytes(monkeypatch):
    for data, names in ((b"a.jpg\0b c.jpg\0", ["a.jpg", "b c.jpg"]),
                        (b"a\nb.jpg\0c.jpg\0-\0\0d\r\n\0", ["a\nb.jpg", "c.jpg", "d\r\n"]),
                        (b"a.jpg\r\n\n-\nb.jpg", ["a.jpg", "b.jpg"]), (b"", [])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert list(find_photos(["-"])) == names


def test_with_together_a_copy_of_a_photograph_is_ignored(trained, tmp_path, capsys):
    photo = trained / "photos/a.jpg"
    (tmp_path / "copy.jpg").write_bytes(photo.read_bytes())
    table = tmp_path / "walk.csv"
    found = []
    for rows in ([photo], [photo, photo, "copy.jpg"]):
        table.write_text("path,observation\n" + "".join(f"{path},one\n" for path in rows))
        main([str(table), "--together", "--format", "json", *flags(trained)])
        found += json.loads(capsys.readouterr().out)
    assert found[0] == found[1]
    assert found[0]["photo"] == "one (1)"
    for text, named in (("path,observation\n,one\n", "without a path"),
                        ("path,path,observation\na,b,c\n", "'path', or two")):
        table.write_text(text)
        with pytest.raises(InputError, match=named):
            main([str(table), "--together", *flags(trained)])


# ---- streams ----

@POSIX
def test_json_is_utf_8_whatever_a_file_is_called(trained, tmp_path, capsys):
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(name, "wb") as file:
        file.write((trained / "photos/a.jpg").read_bytes())
    main([os.fsdecode(name), "--format", "json", *flags(trained)])
    answer, = json.loads(capsys.readouterr().out.encode("utf-8"))
    assert os.fsencode(answer["photo"]) == name
    for letter in "\u202e\u2066\u200e\u200f\u061c":  # turn a line round
        assert escape_controls(f"{letter}gpj.a") == f"\\u{ord(letter):04x}gpj.a"


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
def test_a_closed_standard_stream_counts_as_empty(stream):
    script = SCRIPT.format("sys.stdout.reconfigure(), print(1), print(2, file=sys.stderr)")
    done = subprocess.run(f"{shlex.join([sys.executable, '-c', script])} {stream}&-", shell=True,
                          cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    expected = "" if stream == ">" else "1\n", "" if stream == "2>" else "2\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, *expected)
