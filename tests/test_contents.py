"""Photographs are recognised by what they contain, not by their names."""
import pytest
import torch

import evaluate
import train
from tests.conftest import draw, jpeg
from tests.training_runs import evaluation_flags, load, settings
from training import checkpoints
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


# ---- test photographs ----

def add_rows(folder, rows):
    """Append rows to the test table and return it."""
    table = folder / "dataset/test_labels.csv"
    table.write_text(table.read_text() + "\n".join(rows) + "\n")
    return table


def evaluated(folder):
    """Evaluate the newest run."""
    evaluate.main([str(flag) for flag in evaluation_flags(folder)])


@pytest.mark.parametrize("row, key", [
    ("./train/Rosa prima/rosa_prima_train_1.jpg,0,Rosa prima,new,,,,", "path"),
    ("test/Rosa prima/copy.jpg,0,Rosa prima,new,abc,,,", "sha256"),
    ("test/Rosa prima/copy.jpg,0,Rosa prima,train00,,,,", "group")])
def test_photographs_in_both_tables_are_refused(folder, row, key):
    train.train(settings(folder, *ONCE))
    (folder / "dataset/test/Rosa prima/copy.jpg").write_bytes(jpeg(draw(1)))
    table = folder / "dataset/train_labels.csv"
    table.write_text(table.read_text().replace(",train00,,", ",train00,abc,"))
    add_rows(folder, [row])
    for script in (lambda: evaluated(folder),
                   lambda: train.train(settings(folder, *ONCE, "--run", "other"))):
        with pytest.raises(InputError, match="1 of 10 rows") as raised:
            script()
        assert f"same {key}" in str(raised.value) and "--repair" in str(raised.value)
    assert not (folder / "checkpoints/other").exists()


def test_a_test_on_trained_and_validated_photographs_is_refused(folder, capsys):
    """They have other names here, and their rows have been deleted from the training table."""
    train.train(settings(folder, *ONCE))
    evaluated(folder)
    assert "does not record" not in capsys.readouterr().err
    rows = []
    for number, path in enumerate(sorted((folder / "dataset/train/Rosa prima").iterdir())):
        (folder / f"dataset/test/Rosa prima/again_{number}.jpg").write_bytes(path.read_bytes())
        rows.append(f"test/Rosa prima/again_{number}.jpg,0,Rosa prima,again{number},,,,")
    add_rows(folder, rows)
    table = folder / "dataset/train_labels.csv"
    table.unlink()
    with pytest.raises(InputError, match=r"8 of 17 photographs .*again_0\.jpg"):
        evaluated(folder)
    best = load(folder, name=checkpoints.BEST)
    assert [len(best["seen"][how]) for how in checkpoints.SEEN] == [21, 3, 0]
    checkpoints.save_checkpoint(folder / "checkpoints/tiny" / checkpoints.BEST,
                                {key: best[key] for key in best if key != "seen"})
    evaluated(folder)  # as a checkpoint of an earlier version
    assert "does not record" in capsys.readouterr().err


def test_what_a_teacher_has_seen_is_no_test_of_its_student(folder):
    train.train(settings(folder, *ONCE, "--run", "teacher"))
    table = folder / "dataset/train_labels.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    teacher = folder / "checkpoints/teacher" / checkpoints.BEST
    train.train(settings(folder, *ONCE, "--teacher", teacher, "--run", "student"))
    add_rows(folder, [lines[-1].strip()])
    with pytest.raises(InputError, match="1 of 10 photographs"):
        evaluated(folder)


@pytest.mark.parametrize("seen", [
    {"trained": torch.zeros(3)}, dict.fromkeys(checkpoints.SEEN, 3),
    dict.fromkeys(checkpoints.SEEN, torch.zeros(2, 2, dtype=torch.int64))])
def test_hashes_that_are_none_are_refused(tmp_path, seen):
    checkpoints.save_checkpoint(tmp_path / "c", {"model_state_dict": {"a": torch.zeros(1)},
                                                 "seen": seen})
    with pytest.raises(InputError, match="seen"):
        checkpoints.load_checkpoint(tmp_path / "c")
