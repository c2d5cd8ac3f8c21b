"""A teacher: the loss, its view of a student's view, exact resume, and what is refused."""
import numpy as np
import pytest
import torch

import train
from dataset import normalize
from model import build_model
from tests.conftest import NAMES, write_classes
from tests.training_runs import (
    Stopped,
    curves,
    load,
    make_folder,
    read_history,
    same,
    settings,
    stop_after,
    weights,
)
from training import checkpoints
from training.plan import estimate_memory
from training.teacher import Adapted, Teacher, build_teacher, distillation_loss
from utils import InputError


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Return (folder, checkpoint) of a trained network of another kind, size and normalisation."""
    folder = make_folder(tmp_path_factory.mktemp("taught"))
    train.train(settings(folder, "--run", "teacher", "--image_size", "48", "--mean",
                         "(0.5,0.5,0.5)", "--std", "(0.5,0.5,0.5)", "--num_epochs", "4"))
    return folder, folder / "checkpoints/teacher" / checkpoints.BEST


def test_the_loss_is_the_divergence_of_softened_predictions():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 4, generator=generator) for _ in range(2))
    p, q = (np.exp(x.numpy() / 3) for x in (teacher, student))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    expected = 9 * (p * np.log(p / q)).sum(1).mean()
    assert distillation_loss(student, teacher, 3.0).item() == pytest.approx(expected, rel=1e-5)
    assert distillation_loss(student, student + 7, 3.0).item() == pytest.approx(0, abs=1e-6)
    blend, parts = Teacher([torch.nn.Identity()], 3.0, 0.75).blend(
        torch.tensor(2.0), student, teacher)
    assert blend.item() == pytest.approx(0.25 * 2 + 0.75 * expected, rel=1e-5)
    assert parts["teacher_loss"].item() == pytest.approx(expected, rel=1e-5)


def test_several_teachers_teach_the_mean_of_their_logits():
    logits = torch.randn(5, 4)
    taught = Teacher([torch.nn.Identity(), torch.nn.Tanh()], 3.0, 0.75)(logits)
    assert torch.allclose(taught, (logits + logits.tanh()) / 2)


def test_a_teacher_sees_a_view_in_its_own_normalisation_and_size():
    pixels = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    means, stds = ((0.4, 0.5, 0.6), (0.5, 0.5, 0.5)), ((0.2, 0.3, 0.25), (0.5, 0.5, 0.5))
    seen = Adapted(torch.nn.Identity(), means, stds, 24, 2.0)(normalize(pixels, means[0], stds[0]))
    assert torch.allclose(2 * seen, normalize(pixels, means[1], stds[1]), atol=1e-5)
    assert Adapted(torch.nn.Identity(), means, stds, 32, 1.0)(seen).shape == (2, 3, 32, 32)


def test_runs_with_a_teacher_are_equal_bit_for_bit_and_learn_from_it(taught, capsys):
    """Two runs, one resumed without the cache; MixUp and CutMix are mixed for both sides."""
    folder, teacher = taught
    options = ["--teacher", teacher, "--mixup", "0.4", "--cutmix", "1", "--trivial_augment",
               "--teacher_weight", "1", "--learning_rate", "0.01", "--num_epochs", "5"]
    train.train(settings(folder, *options))
    printed = capsys.readouterr().out
    assert "teacher: val acc 100.00%" in printed
    assert "ms per photograph" in printed
    with pytest.raises(Stopped):
        train.train(settings(folder, *options, "--run", "cut"), stop_after(3))
    train.train(settings(folder, *options, "--run", "cut", "--no-cache"))
    assert same(weights(folder), weights(folder, "cut"))
    history = read_history(folder)
    assert history[-1]["teacher_loss"] < 0.7 * history[0]["teacher_loss"]
    assert history[-1]["val_accuracy"] > 0.6, "although the labels have no weight"
    assert history[0]["train_loss"] == history[0]["teacher_loss"] != history[0]["label_loss"]
    tags = curves(folder, "cut")
    assert [step for step, _ in tags["loss/train_teacher"]] == [1, 2, 3, 4, 5]


def test_the_run_is_named_by_what_the_teacher_is_and_not_by_where_it_lies(taught, tmp_path):
    folder, teacher = taught
    moved = tmp_path / "moved.pth.tar"
    moved.write_bytes(teacher.read_bytes())

    def name(*options):
        s = settings(folder, "--run", "", *options)
        return train.build_facts(s, train.build_data(s))[0]["run"]
    assert name("--teacher", teacher) == name("--teacher", moved)
    assert name("--teacher", teacher) != name("--teacher", f"{teacher},{moved}") != name()
    assert name() == name("--teacher_weight", "0.1"), "which has no effect without a teacher"


@pytest.mark.parametrize("options, message", [
    (["--teacher", "missing.pth.tar"], r"missing\.pth\.tar does not exist"),
    (["--teacher", "foreign.pth"], r"foreign\.pth is not a checkpoint of this project"),
    (["--teacher", "nameless.pth"], r"nameless\.pth has no run"),
    (["--teacher", "teacher", "--class_table", "reversed.csv"], "trained on other classes"),
    (["--teacher", "teacher", "--num_epochs", "0", "--initial_weights", "imagenet_v1"],
     "--teacher has no effect")])
def test_what_cannot_teach_is_refused_before_a_photograph_is_read(taught, tmp_path, options,
                                                                  message):
    folder, teacher = taught
    torch.save({"weights": 1}, tmp_path / "foreign.pth")
    torch.save({"model_state_dict": load(folder, "teacher")["model_state_dict"]},
               tmp_path / "nameless.pth")
    write_classes(tmp_path / "reversed.csv", NAMES[::-1])
    options = [teacher if option == "teacher" else
               tmp_path / option if "." in option and option != "teacher" else option
               for option in options]
    with pytest.raises(InputError, match=message):
        train.check_settings(settings(folder, *options))


def test_a_teacher_trained_on_other_photographs_is_reported(taught, capsys):
    folder, teacher = taught
    train.train(settings(folder, "--teacher", teacher, "--split_seed", "3", "--num_epochs", "1",
                         "--run", "split"))
    warnings = capsys.readouterr().err
    assert warnings.count("warning: teacher") == 1
    assert "split_seed is 0, here 3" in warnings


def test_memory_counts_the_teachers(taught):
    folder, teacher = taught
    alone, each = estimate_memory(settings(folder), 3)
    fixed, more = estimate_memory(settings(folder, "--teacher", f"{teacher},{teacher}"), 3)
    size = sum(value.nbytes for value in build_model("plain_cnn", 3).state_dict().values())
    assert fixed - alone == pytest.approx(2 * size / 1e9)
    assert 0 < more - each < each, "predictions keep little, and one teacher predicts at a time"
    assert build_teacher(settings(folder)) is None
