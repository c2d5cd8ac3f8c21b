"""Photographs are recognised by what they contain, not by their names."""
import pytest

import train
from tests.conftest import draw, jpeg
from tests.training_runs import load, settings
from training import checkpoints
from training.contents import table_fingerprint
from training.run_state import build_data
from training.runs import run_name
from utils import InputError

ONCE = ("--num_epochs", "1")


def replace_photographs(folder):
    """Put other pictures into all training files, under the same names."""
    for number, path in enumerate(sorted((folder / "dataset/train").rglob("*.jpg"))):
        path.write_bytes(jpeg(draw(number, (64, 64))))


def test_replaced_photographs_are_not_taken_for_those_of_a_finished_run(folder):
    train.train(settings(folder, *ONCE))
    train.train(settings(folder, *ONCE, "--run", ""))
    before = {path.name for path in (folder / "checkpoints").iterdir()}
    replace_photographs(folder)
    with pytest.raises(InputError, match="photographs or their labels have changed"):
        train.train(settings(folder, *ONCE))
    train.train(settings(folder, *ONCE, "--run", ""))
    assert len({path.name for path in (folder / "checkpoints").iterdir()} - before) == 1


def test_a_run_of_an_earlier_version_is_recognised_by_paths_with_a_warning(folder, capsys):
    s = settings(folder, *ONCE, "--run", "")
    train.train(s)
    (new,) = (folder / "checkpoints").iterdir()
    earlier = table_fingerprint(build_data(s).table, s.dataset_dir).earlier
    old = new.rename(new.with_name(run_name({**load(folder, new.name)["settings"],
                                             "photographs": earlier})))
    for name in (checkpoints.BEST, checkpoints.LAST):
        checkpoint = load(folder, old.name, name)
        checkpoint["settings"]["photographs"] = earlier
        checkpoints.save_checkpoint(old / name, checkpoint)
    capsys.readouterr()
    train.train(s)
    printed = capsys.readouterr()
    assert "already finished" in printed.out and "earlier version" in printed.err
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [old.name]
