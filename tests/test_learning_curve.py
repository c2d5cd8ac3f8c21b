"""The report's learning curve: shares of whole groups, out-of-fold accuracy, the next doubling."""
import numpy as np
import pytest

from evaluation.learning_curve import (
    build_learning_curve,
    describe_curve,
    describe_gain,
    draw_positions,
    next_gain,
    probe_shares,
)
from tests.training_runs import make_folder, settings, write_weights
from training.fit_answers import Features
from utils import read_classes


def test_shares_are_nested_whole_groups_of_every_class():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat([0, 1, 2], (40, 16, 1)), np.arange(57) // 4
    places = draw_positions(labels, groups, rng)
    for share in (1 / 8, 1 / 2, 1):
        chosen = places < share
        for label, count in enumerate((40, 16, 1)):
            within = share * count
            assert max(1, within) <= chosen[labels == label].sum() < within + 4
        for group in np.unique(groups):
            for label in np.unique(labels[groups == group]):
                assert len(set(chosen[(groups == group) & (labels == label)])) == 1
    assert not np.array_equal(places, draw_positions(labels, groups, rng))


def test_a_curve_rises_where_there_is_something_to_learn_and_not_by_leaks():
    rng = np.random.default_rng(1)
    groups, labels = np.arange(240) // 2, np.arange(240) // 2 % 3
    means = rng.normal(size=(3, 20))
    views = means[labels] * 0.6 + rng.normal(size=(240, 20))
    hits, counts = probe_shares(Features(views[None].astype(np.float32), labels, groups), 3, 2, 0,
                                even=True)
    assert hits.shape == (2, 4, 240)
    assert counts.sum(1) == pytest.approx([24, 48, 96, 192], rel=0.3)
    curve = describe_curve(hits, counts, Features(views[None], labels, groups))
    values = [value for value, _, _ in curve["accuracy"]]
    assert values == pytest.approx(hits.mean((0, 2)))
    assert values[0] + 0.1 < values[-1]
    assert all(low < value < high for value, low, high in curve["accuracy"])
    assert [row["label"] for row in curve["classes"]] == [0, 1, 2]
    recalls = [row["accuracy"][-1][0] for row in curve["classes"]]
    assert np.mean(recalls) == pytest.approx(values[-1])
    # both photographs of a group are the same and its label is chance: only a leak could know it
    twins = np.repeat(rng.normal(size=(120, 60)), 2, axis=0)[None].astype(np.float32)
    chance, _ = probe_shares(Features(twins, np.repeat(rng.integers(0, 3, 120), 2), groups), 3, 1,
                             0, even=True)
    assert chance[0, -1].mean() < 0.5


def test_errors_fall_by_the_mean_factor_of_the_doublings():
    def gain(accuracy, every):
        repeated = (np.repeat(np.array(side)[:, None], 50, axis=1) for side in (accuracy, every))
        first, *others = next_gain(*repeated)
        return first, {round(float(other), 6) for other in others}
    every = (0.2, 0.5, 0.6, 0.9)  # errors 0.8, then 0.1 after three doublings, then 0.05
    assert gain(every, every) == (pytest.approx(0.05), {0.0375, 0.02, 0.075})  # by 5/8, 4/5, 1/4
    assert gain((1, 1, 1, 1), every)[0] == gain((1, 1, 1, 1), (1, 1, 1, 1))[0] == 0
    worse = (0.6, 0.6, 0.6, 0.5)
    assert gain(worse, worse) == (pytest.approx(0.5 * (1 - 1.25 ** (1 / 3))), {0.0, -0.125})
    assert gain(worse, every)[0] == pytest.approx(0.5 * (1 - 0.5 ** (1 / 3)))


def test_it_is_drawn_from_kept_features_of_the_initial_weights(tmp_path, capsys):
    folder = make_folder(tmp_path)
    s = settings(folder, "--initial_weights", write_weights(folder))
    s.learning_curve, trained = 1, {key: getattr(s, key) for key in (
        "model", "initial_weights", "image_size", "mean", "std", "seed", "balance")}
    s.model, s.initial_weights = "resnet18", "none"  # those of the checkpoint count
    classes = read_classes(s.class_table)
    curve = build_learning_curve(s, trained, classes)
    assert "24 to compute" in capsys.readouterr().out
    assert curve["accuracy"][-1][0] > 0.9
    assert build_learning_curve(s, trained, classes) == curve
    assert "0 to compute" in capsys.readouterr().out
    assert "with twice as many photographs" in describe_gain(curve, classes)
    for change, reason in (({"initial_weights": "none"}, "started random"),
                           ({"initial_weights": "away.pth"}, "away.pth")):
        assert reason in build_learning_curve(s, {**trained, **change}, classes)["reason"]
    assert "does not name" in build_learning_curve(s, {"seed": 0}, classes)["reason"]
    s.learning_curve = 0
    assert build_learning_curve(s, trained, classes) is None
