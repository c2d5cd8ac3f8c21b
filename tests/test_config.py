"""Settings: flags, files, types, and that the file stays plain data."""
import ast
import json

import pytest

import config
from tests.conftest import run_script


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
