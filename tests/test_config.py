"""Settings: flags, JSON files and edits of config.py are checked alike; a script takes its own."""
import ast
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import config
from evaluation.facts import FACTS
from settings import command_line
from settings.scripts import SCRIPTS, names_of, scripts_with
from settings.table import GROUPS, KINDS
from tests.conftest import ROOT, run_script

ANY = "config.py"  # takes every setting


def parse(*argv, script=ANY, arguments=()):
    return config.parse(list(argv), script, "", arguments)


def refused(capsys, *argv, script=ANY, arguments=()):
    """Return the last line that a usage error prints; the status is 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(*argv, script=script, arguments=arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Return a folder with everything that `python config.py` imports."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "settings", folder / "settings")
    for file in ("utils.py", "names.py"):  # what settings/ needs
        shutil.copy(ROOT / file, folder)
    return folder


@pytest.fixture(scope="module")
def edited(copy):
    """Return a function that writes an edited config.py to the copy and runs it there."""
    def run(edit):
        (copy / "config.py").write_text(edit((ROOT / "config.py").read_text("utf-8")), "utf-8")
        return subprocess.run([sys.executable, "config.py"], cwd=copy, capture_output=True,
                              text=True, check=False)
    return run


@pytest.fixture(scope="module")
def untouched(edited):
    """Return what `python config.py` prints before any edit."""
    return edited(lambda text: text).stdout


def append(line):
    """Return the edit that adds a line below the settings of config.py."""
    return lambda text: text.replace("\nif __name__", f"\n{line}\nif __name__")


# ---- flags and files ----

def test_flags_convert_and_report_what_changed():
    s, changed = parse("--learning_rate", "1", "--batch_size", "7", "--freeze_backbone",
                       "--mean", "(0, 0.5, 1)")
    assert changed == {"LEARNING_RATE": 1.0, "BATCH_SIZE": 7, "FREEZE_BACKBONE": True,
                       "MEAN": (0.0, 0.5, 1.0)}
    assert type(s.learning_rate) is float
    assert s.batch_size == 7
    assert parse()[1] == {}


@pytest.mark.parametrize("flag", ["--batch-size", "--batch_size", "--BATCH_SIZE"])
def test_a_hyphen_and_case_in_a_flag_do_not_matter(flag):
    assert parse(flag, "5")[1] == parse(f"{flag}=5")[1] == {"BATCH_SIZE": 5}
    for off in ("--no-cache", "--no_cache"):
        assert parse(off)[1] == {"CACHE": False}
    assert parse("--no-flip-tta")[1] == {"FLIP_TTA": False}


@pytest.mark.parametrize("text", [
    "('cc0', 'cc-by')", "cc0,cc-by", "cc0, cc-by", "['cc0', 'cc-by']"])
def test_a_tuple_may_be_written_as_in_python_or_with_commas(text):
    assert parse("--licenses", text)[0].licenses == ("cc0", "cc-by")
    assert parse("--search_models", "resnet18")[0].search_models == ("resnet18",)
    assert parse("--mean", "0.1,0.2,0.3")[0].mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("argv, named", [
    (["--batchsize", "3"], "--batch_size"), (["--batch_size", "abc"], "whole number"),
    (["--mean", "(1,"], "3 numbers"), (["--mean", "(1, 1)"], "3 numbers"),
    (["--accepted_modes", "(1,)"], "RGB"), (["--nonsense", "1"], "--nonsense"),
    (["--balance", "weight"], "weights"), (["--image_search_color", "pink"], "violet"),
    (["--image_search_size", "huge"], "1920x1080"), (["--source", "gbif,flickr"], "inaturalist"),
    (["--photo_size", "2048"], "original"), (["--area", "moon"], "crimea"),
    (["--dataset_sha256", "12"], "64 hex"), (["--licenses", "('cc0', 'gpl')"], "cc-by-nc"),
    (["--kingdoms", "Plants"], "Plantae"), (["--format", "xml"], "csv"),
    (["--search_pruner", "asha"], "halving"), (["--gbif_url", "gbif.org"], "https://"),
    (["--model", "vgg"], "resnet18"), (["--lr", "1"], "--learning_rate"),
    (["--optimizer", "sgd"], "AdamW")])
def test_a_wrong_flag_is_a_usage_error_that_names_what_is_allowed(argv, named, capsys):
    line = refused(capsys, *argv)
    assert named in line
    assert argv[0] in line


def test_flag_wins_over_file_wins_over_constant(tmp_path):
    file = tmp_path / "best.json"
    file.write_text(json.dumps(
        {"batch_size": 3, "FLIP": 1, "mean": [0, 0, 0.5], "dataset_dir": "here"}))
    s, _ = parse("--settings", str(file), "--flip", "0.25")
    assert (s.batch_size, s.flip, s.mean) == (3, 0.25, (0.0, 0.0, 0.5))
    assert s.dataset_dir.is_absolute()


def test_positional_arguments_are_returned_for_a_script_that_takes_them(capsys):
    photos = ("photos", "photographs to identify")
    s, changed = parse("a.jpg", "--top", "1", "b c.jpg", "--", "--odd.jpg", script="predict.py",
                       arguments=photos)
    assert (s.photos, changed) == (["a.jpg", "b c.jpg", "--odd.jpg"], {"TOP": 1})
    assert "photos" in refused(capsys, script="predict.py", arguments=photos)
    assert "a.jpg" in refused(capsys, "a.jpg")


@pytest.mark.parametrize("text, named", [
    ('{"batch_size": "3"}', "whole number"), ('{"nonsense": 1}', "nonsense"), ("[1]", "object"),
    ("{", "Expecting"), ("num_epochs: 5\nflip: 0.5\n", "not JSON"),
    ('{"trivial_augment": 1}', "True or False"), ('{"teacher": "a"}', 'in JSON ["a"]'),
    ('{"batchsize": 1}', "batch_size"), ('{"run": null}', "text"),
    (f'{{"learning_rate": 1{"0" * 400}}}', "above 0"), ("[" * 100_000, "recursion"),
    ('{"dataset_dir": "a\\u0000b"}', "path"), ('{"run": "a\\u0000b"}', "text"),
    ('{"dataset_dir": "~nobody-of-this-name/x"}', "path")])
def test_a_bad_settings_file_is_a_usage_error_that_names_the_file(tmp_path, text, named, capsys):
    file = tmp_path / "bad.json"
    file.write_text(text)
    line = refused(capsys, "--settings", str(file))
    assert named in line
    assert str(file) in line


def test_a_settings_file_that_is_missing_is_named_once(capsys):
    assert refused(capsys, "--settings", "/nope.json").count("/nope.json") == 1


# ---- ranges and choices, wherever a value comes from ----

OUTSIDE = [
    ("validation_share", 1.5, "in [0, 1)"), ("flip", 3, "in [0, 1]"),
    ("max_risk", -0.1, "in [0, 1]"), ("crop_scale_min", 0, "in (0, 1]"), ("top", 0, "at least 1"),
    ("image_size", 8, "32 to 4096"), ("num_workers", -5, "at least -1"),
    ("jpeg_quality", 96, "1 to 95"), ("hash_distance", -2, "-1 to 64"), ("photo_mb", 0, "above 0"),
    ("mixup", "inf", "at least 0"), ("flip", "nan", "in [0, 1]"), ("mean", (0, 0, 2), "in [0, 1]")]


@pytest.mark.parametrize("flag, value, wanted", OUTSIDE)
def test_a_value_outside_its_range_is_a_usage_error_by_flag_and_file(flag, value, wanted, tmp_path,
                                                                     capsys):
    file = tmp_path / "some.json"
    file.write_text(json.dumps({flag: float(value) if isinstance(value, str) else value}))
    for argv, where in (([f"--{flag}", str(value)], f"--{flag}"),
                        (["--settings", str(file)], str(file))):
        line = refused(capsys, *argv)
        assert where in line
        assert wanted in line


@pytest.mark.parametrize("flag, value, wanted", OUTSIDE)
def test_an_edited_value_outside_its_range_is_a_usage_error(flag, value, wanted, edited):
    name, written = flag.upper(), f"float('{value}')" if isinstance(value, str) else repr(value)
    done = edited(lambda text: re.sub(rf"(?m)^{name} = \S.*?  #", f"{name} = {written}  #", text))
    assert (done.returncode, done.stderr.count("Traceback")) == (2, 0)
    assert f"config.py, {name}" in done.stderr
    assert wanted in done.stderr


@pytest.mark.parametrize("flags", [
    ["--flip", "0", "--erasing", "1"], ["--crop_scale_min", "1"], ["--label_smoothing", "0.99"],
    ["--top", "1"], ["--jpeg_quality", "95", "--hash_distance", "-1", "--port", "65535"],
    ["--page_delay", "(0, 0)"]])
def test_the_ends_of_a_range_are_allowed_unless_it_excludes_them(flags):
    assert parse(*flags)[1]


@pytest.mark.parametrize("line, named", [
    ("TRIVIAL_AUGMENT = 'no'", "True or False"), ("SEARCH_MODELS = ('resnet18')", "('resnet18',)"),
    ("MEAN = 0.5", "3 numbers"), ("RUN = None", "a text"), ("CLASS_TABLE = 7", "a path"),
    ("BATCH_SIZE = 9.5", "whole"), ("IMAGE_SEARCH_FORMAT = 'bmp'", "gifan"),
    ("DATASET_SHA256 = 'abc'", "64 hex digits"), ("FLIP = True", "a number")])
def test_an_edited_value_of_another_type_is_a_usage_error(line, named, edited):
    name = line.split()[0]
    for edit in (lambda text: re.sub(rf"(?m)^{name} = .*$", line, text), append(line)):
        done = edited(edit)
        assert (done.returncode, done.stderr.count("Traceback")) == (2, 0)
        assert f"config.py, {name}" in done.stderr
        assert named in done.stderr


@pytest.mark.parametrize("edit", [
    lambda text: re.sub(r"(?m)^([A-Z_0-9]+ = .*?)  #.*$", r"\1", text),  # all comments deleted
    lambda text: text.replace("  # ", " # "), lambda text: re.sub(r"(?m)^# ----.*\n", "", text),
    lambda text: re.sub(r"(?m)^(BATCH_SIZE = 0).*$", r"\1  # rewritten: 100 %", text)])
def test_comments_may_be_deleted_and_rewritten(edit, edited, untouched):
    done = edited(edit)
    assert (done.returncode, done.stdout) == (0, untouched)


def test_an_edited_path_may_be_a_text_and_is_relative_to_the_repository(edited, copy):
    done = edited(lambda text: re.sub(r"(?m)^DATASET_DIR = .*$", 'DATASET_DIR = "my/flora"', text))
    assert f"{copy / 'my/flora'}\n" in done.stdout


def test_a_missing_and_an_unknown_setting_in_config_are_named(edited):
    done = edited(lambda text: re.sub(r"(?m)^BATCH_SIZE = .*\n", "BATCHSIZE = 3\n", text))
    assert (done.returncode, done.stderr.count("Traceback")) == (2, 0)
    assert "BATCH_SIZE" in done.stderr
    done = edited(lambda text: text.replace("\nFLIP =", "\nFLIPS = 3\nFLIP ="))
    assert done.returncode == 0
    assert "FLIPS" in done.stderr


def test_every_number_has_a_range_but_seeds_and_comments_state_it():
    comments = command_line.read_comments((ROOT / "config.py").read_text("utf-8"))
    numbers = {name: kind for name, kind in KINDS.items() if kind.type in (int, float)}
    assert [name for name, kind in numbers.items() if not kind.range()] == [
        "SPREAD_SEED", "SPLIT_SEED", "SEED"]
    assert {name: kind.range() for name, kind in numbers.items()
            if not comments[name].endswith(f"; {kind.range()}")} == {
                "SPREAD_SEED": "", "SPLIT_SEED": "", "SEED": ""}


@pytest.mark.parametrize("name", ["IMAGE_SIZE", "MEAN", "STD"])
def test_what_may_be_trained_with_may_be_read_from_a_checkpoint(name):
    """Images of 5,000 pixels were trained on, and the finished checkpoint was refused."""
    kind = KINDS[name]
    for end in (kind.low, kind.high):
        assert FACTS[name.lower()][0]((end,) * 3 if kind.several else end)


def test_choices_are_those_of_the_tables_they_name():
    from dataset_preparation.parsing.browser import BROWSERS
    from dataset_preparation.parsing.parsing import SOURCES
    from hyperparameter_optimization import SPACE
    from model import MODELS
    from pack import PACKERS
    from predict import WRITERS
    for name, table in {"MODEL": MODELS, "SEARCH_MODELS": MODELS, "SEARCH_SETTINGS": SPACE,
                        "SOURCE": SOURCES, "BROWSER": BROWSERS, "PACK": PACKERS,
                        "FORMAT": WRITERS}.items():
        assert set(KINDS[name].choices) == set(table), name


# ---- the settings of a script ----

def test_every_script_has_its_settings_and_every_setting_a_script():
    written = {path.name for path in [*ROOT.glob("*.py"), *ROOT.glob("dataset_preparation/*/*.py")]
               if "config.parse(" in path.read_text("utf-8")}
    assert written == set(SCRIPTS) - {"config.py"}
    assert all(scripts_with(name) for name in KINDS)
    known = {*GROUPS, *KINDS}
    assert not {word for taken in SCRIPTS.values() for word in taken.split()} - known


@pytest.mark.parametrize("script, argv, owner", [
    ("predict.py", ["--learning_rate", "99"], "train.py"),
    ("predict.py", ["--yandex_url=zzz"], "parsing.py"),
    ("train.py", ["--no-headless"], "parsing.py"),
    ("train.py", ["--jpeg_quality", "3"], "cleaning.py"),
    ("cleaning.py", ["--batch_size", "3"], "train.py"),
    ("app.py", ["--format", "csv"], "predict.py"),
    ("app.py", ["--max_file_mb", "3"], "predict.py")])  # its own limit is --upload_mb
def test_a_flag_of_another_script_is_a_usage_error_that_names_it(script, argv, owner, capsys):
    line = refused(capsys, *argv, script=script)
    assert owner in line
    assert argv[0].partition("=")[0].replace("no-", "") in line


@pytest.mark.parametrize("script", sorted(set(SCRIPTS) - {"config.py"}))
def test_a_settings_file_may_hold_the_settings_of_any_script(script, tmp_path):
    file = tmp_path / "all.json"
    file.write_text(json.dumps(
        {"batch_size": 3, "source": "gbif", "top": 2, "flip_tta": False}))
    s, changed = parse("--settings", str(file), script=script)
    taken = set(names_of(script))
    assert set(changed) == {"BATCH_SIZE", "SOURCE", "TOP", "FLIP_TTA"} & taken
    assert {name.upper() for name in vars(s)} == taken


def test_help_lists_only_the_settings_of_the_script_and_fits_two_screens(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for script in ("predict.py", "evaluate.py", "export.py", "pack.py"):
        printed = run_script(script, "--help").stdout
        assert len(printed.splitlines()) <= 80, script
        assert "--learning_rate" not in printed
    assert "photographs per step" in run_script("train.py", "--help").stdout


# ---- the file ----

def test_every_setting_has_a_group_and_a_comment_and_is_a_literal():
    text = (ROOT / "config.py").read_text("utf-8")
    tree = ast.parse(text)
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    names = [name for name in values if name not in ("ROOT", "TRAINING_GROUPS")]
    assert names == list(config.settings())
    assert re.findall(r"(?m)^# ---- (\w+) ----$", text) == list(GROUPS)
    assert set(command_line.read_comments(text)) >= set(KINDS)
    for name in KINDS:
        if isinstance(values[name], ast.BinOp):
            assert values[name].left.id == "ROOT"
            assert isinstance(values[name].right.value, str)
        else:
            ast.literal_eval(values[name])


def test_the_next_command_takes_over_what_the_next_script_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, given = parse("--class_table", "my plants.csv", "--licenses", "cc0,pd", "--no-headless",
                     "--limit_classes", "2", script="parsing.py")
    assert shlex.split(command_line.next_command("a/cleaning.py", given)) == [
        "python", str(config.ROOT / "a/cleaning.py"), "--class_table", "my plants.csv",
        "--limit_classes", "2"]
    *_, same = parse(*shlex.split(command_line.next_command("parsing.py", given))[2:],
                     script="parsing.py")
    assert same == given


def test_a_command_names_its_script_as_the_working_folder_sees_it(tmp_path, monkeypatch):
    root = config.ROOT
    for folder, shown in ((root, "pack.py"), (root.parent, f"{root.name}/pack.py"),
                          (tmp_path, f"{root}/pack.py")):
        monkeypatch.chdir(folder)
        assert shlex.split(command_line.script_command("pack.py", "--web", folder / "a b")) == [
            "python", shown, "--web", "a b"]
    monkeypatch.chdir(root.anchor)
    assert shlex.split(command_line.script_command("pack.py", "--web", tmp_path)) == [
        "python", f"{root}/pack.py", "--web", str(tmp_path)]


def test_a_command_for_windows_can_be_pasted_into_cmd_and_powershell(monkeypatch):
    monkeypatch.setattr(command_line.os, "name", "nt")
    words = ["python", r"C:\plants\train.py", "--mean", "0.1,0.2", r"C:\R&D", "#1", "(x)", "й", ""]
    quoted = command_line.shell_join(words)
    monkeypatch.undo()
    assert quoted == r'python C:\plants\train.py --mean "0.1,0.2" "C:\R&D" "#1" "(x)" й ""'


def test_an_unknown_setting_of_a_namespace_is_refused():
    with pytest.raises(ValueError, match="batchsize"):
        config.namespace(batchsize=3)
