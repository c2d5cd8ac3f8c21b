"""Settings: flags, files, types, and that the file stays plain data."""
import ast
import json
import re
import subprocess
import sys

import pytest

import config
from tests.conftest import ROOT, SETTINGS, run_script


def test_flags_convert_and_report_what_changed():
    changed = config.override(["--learning_rate", "1", "--batch_size", "7", "--freeze_backbone",
                               "--mean", "(0, 0.5, 1)"])
    assert changed == {"LEARNING_RATE": 1.0, "BATCH_SIZE": 7, "FREEZE_BACKBONE": True, "MEAN": (0.0, 0.5, 1.0)}
    assert type(config.LEARNING_RATE) is float
    assert config.namespace().batch_size == 7


@pytest.mark.parametrize("argv", [
    ["--batchsize", "3"], ["--batch_size", "abc"], ["--mean", "(1,"], ["--mean", "(1, 2)"],
    ["--accepted_modes", "(1,)"]])
def test_unknown_or_ill_typed_flags_are_usage_errors(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        config.override(argv)
    assert stopped.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_flag_wins_over_file_wins_over_constant(tmp_path):
    file = tmp_path / "best.json"
    file.write_text(json.dumps({"batch_size": 3, "FLIP": 1, "mean": [0, 0, 0.5], "dataset_dir": "here"}))
    config.override(["--settings", str(file), "--flip", "0.25"])
    assert (config.BATCH_SIZE, config.FLIP, config.MEAN) == (3, 0.25, (0.0, 0.0, 0.5))
    assert config.DATASET_DIR.is_absolute()


def test_what_is_no_flag_is_returned_where_a_script_takes_it(capsys):
    changed = config.override(["a.jpg", "--top", "1", "b c.jpg"], arguments=("photos", "what to name"))
    assert changed == {"TOP": 1, "PHOTOS": ["a.jpg", "b c.jpg"]}
    for arguments in (("photos", "what to name"), ()):
        with pytest.raises(SystemExit) as stopped:
            config.override(["a.jpg"] if not arguments else [], arguments=arguments)
        assert stopped.value.code == 2
    assert "a.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("text, said", [
    ('{"batch_size": "3"}', "expected int"), ('{"nonsense": 1}', "nonsense"), ("[1]", "object"), ("{", "Expecting")])
def test_bad_settings_file_is_a_usage_error(tmp_path, text, said, capsys):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        config.override(["--settings", str(file)])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag, value, wanted", [
    ("validation_share", 1.5, "in [0, 1)"), ("flip", 3, "in [0, 1]"), ("max_risk", -0.1, "in [0, 1]"),
    ("crop_scale_min", 0, "in (0, 1]"), ("top", 0, "at least 1"), ("image_size", 8, "at least 32"),
    ("num_workers", -5, "at least -1"), ("jpeg_quality", 96, "1 to 95"), ("hash_distance", -2, "-1 to 64"),
    ("photo_mb", 0, "above 0"), ("mixup", "inf", "at least 0"), ("flip", "nan", "in [0, 1]"),
    ("mean", (0, 0, 2), "in [0, 1]")])
def test_a_value_outside_the_range_of_its_comment_is_a_usage_error(flag, value, wanted, tmp_path, capsys):
    file = tmp_path / "some.json"
    file.write_text(json.dumps({flag: float(value) if isinstance(value, str) else value}))
    for argv, where in (([f"--{flag}", str(value)], ""), (["--settings", str(file)], f" in {file}")):
        with pytest.raises(SystemExit) as stopped:
            config.override(argv)
        assert stopped.value.code == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"--{flag} " in said
        assert said.endswith(f"{where}: must be {wanted}")
        vars(config).update(SETTINGS)


@pytest.mark.parametrize("flags", [
    ["--flip", "0", "--erasing", "1"], ["--crop_scale_min", "1"], ["--label_smoothing", "0.99"], ["--top", "1"],
    ["--jpeg_quality", "95", "--hash_distance", "-1", "--port", "65535"], ["--page_delay", "(0, 0)"]])
def test_the_ends_of_a_range_belong_to_it_where_its_comment_says_so(flags):
    assert config.override(flags)


@pytest.mark.parametrize("line", ["FLIP = 3", "FLIP = '0.5'"])
def test_an_edited_config_is_checked_too(line, tmp_path):
    text = (ROOT / "config.py").read_text("utf-8")
    (tmp_path / "config.py").write_text(re.sub(r"(?m)^FLIP = 0.5", line, text), "utf-8")
    done = subprocess.run([sys.executable, "config.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"--flip {line[7:].strip(chr(39))} in config.py: must be in [0, 1]")


def test_every_number_has_a_range_but_seeds_and_no_default_is_outside():
    numbers = [name for name, value in config.settings().items() if not isinstance(value, bool)
               and isinstance(value[0] if isinstance(value, tuple) and value else value, (int, float))]
    free = [name for name in numbers if not config._outside(float("nan"), config._comments()[name])]
    assert free == ["SPLIT_SEED", "SEED"]
    assert all(config._comments()[name].startswith("any integer") for name in free)
    assert config.override([]) == {}


@pytest.mark.parametrize("flag, value, form", [
    ("search_models", "resnet18", "('resnet18',)"), ("licenses", "cc0, cc-by", "('cc0', 'cc-by')"),
    ("licenses", "('cc0')", "('cc0',)"), ("mean", "0.5", "(0.485, 0.456, 0.406)")])
def test_a_tuple_in_another_form_is_shown_the_right_one(flag, value, form, capsys):
    with pytest.raises(SystemExit):
        config.override([f"--{flag}", value])
    assert capsys.readouterr().err.splitlines()[-1].endswith(f'--{flag}: write {value} in the form "{form}"')


def test_a_settings_file_that_is_missing_is_named_once(capsys):
    with pytest.raises(SystemExit):
        config.override(["--settings", "/nope.json"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: --settings /nope.json: No such file or directory")


def test_every_setting_has_a_group_and_a_comment_and_is_a_literal():
    tree = ast.parse((config.ROOT / "config.py").read_text("utf-8"))
    names = [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)]
    grouped = list(config.settings())
    assert [name for name in names if name not in ("ROOT", "TRAINING_GROUPS")] == grouped
    assert set(config._comments()) >= set(grouped)
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id in grouped and not isinstance(node.value, ast.BinOp):
            ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign) and node.targets[0].id in grouped:
            assert node.value.left.id == "ROOT"
            assert isinstance(node.value.right.value, str)


def test_unknown_change_to_namespace_is_refused():
    with pytest.raises(ValueError, match="batchsize"):
        config.namespace(batchsize=3)


def test_help_comes_from_the_comments():
    printed = run_script("config.py", "--help").stdout
    assert "photographs per step" in printed
    assert "--batch_size" in run_script("train.py", "--help").stdout
