"""Label tables, the validation split, items, epoch order, loaders."""
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import config
import dataset
from images import View, evaluation_view
from model import complete
from tests.conftest import NAMES, draw, jpeg, make_labelled, write_classes
from training.image_cache import build_cache
from utils import InputError, process_count, read_classes

CPU = torch.device("cpu")


@pytest.fixture
def labelled(tmp_path):
    """Return (folder, classes, settings) of a small labelled dataset."""
    make_labelled(tmp_path)
    classes = read_classes(write_classes(tmp_path / "classes.csv", NAMES))
    s = config.namespace(image_size=32, batch_size=5, num_workers=0, seed=3)
    return tmp_path, classes, complete(s)


def read(folder, classes):
    return dataset.read_labels(folder / "train_labels.csv", classes)


# ---- label tables ----

def test_label_tables_are_read_with_their_groups(labelled):
    folder, classes, _ = labelled
    table = read(folder, classes)
    assert len(table) == 24
    assert table["group"].nunique() == 24
    assert list(table["label"].value_counts()) == [8, 8, 8]


@pytest.mark.parametrize("replace, by, line", [
    ("path,label", "file,label", None), (",2,Rosa tertia", ",3,Rosa tertia", 18),
    (",2,Rosa tertia", ",zwei,Rosa tertia", 18), (",2,Rosa tertia", ",1,Rosa tertia", 18),
    ("_train_2.jpg", "_train_1.jpg", 3), ("_train_2.jpg", "_train_77.jpg", 3),
    ("train/Rosa", "/train/Rosa", 2), ("train/Rosa", "train/../../Rosa", 2)],
    ids=["no path column", "label too high", "no number", "other class than the folder",
         "listed twice", "missing", "absolute", "outside"])
def test_invalid_rows_of_a_label_table_are_reported(labelled, replace, by, line):
    folder, classes, _ = labelled
    table = folder / "train_labels.csv"
    table.write_text(table.read_text().replace(replace, by, 1))
    with pytest.raises(InputError) as raised:
        read(folder, classes)
    assert str(table) in str(raised.value)
    assert ("'path'" if line is None else f"line {line}") in str(raised.value)


def test_missing_empty_and_unfinished_label_tables_are_refused(labelled):
    folder, classes, _ = labelled
    table = folder / "train_labels.csv"
    (folder / "labels.journal").touch()
    with pytest.raises(InputError, match="interrupted"):
        read(folder, classes)
    (folder / "labels.journal").unlink()
    for damage, fact in ((b"", "'path'"), ("path,label\nроза,1\n".encode("cp1251"), "UTF-8"),
                         (b"path,label\na,1\nb,2,3,4\n", "line 3"), (b"path,label\n", str(table))):
        table.write_bytes(damage)
        with pytest.raises(InputError, match=fact):
            read(folder, classes)
    table.unlink()
    with pytest.raises(InputError, match="download_files.py"):
        read(folder, classes)


def test_a_table_of_path_and_label_only_is_enough(labelled, capsys):
    folder, classes, _ = labelled
    table = folder / "train_labels.csv"
    lines = [",".join(line.split(",")[:2]) for line in table.read_text().splitlines()]
    table.write_text("\r\n".join(lines).replace("/", "\\"))  # as Windows writes it
    groups = read(folder, classes)["group"]
    assert set(groups) == {line.split(",")[0].replace("\\", "/") for line in lines[1:]}
    warning = capsys.readouterr().err
    assert "'group'" in warning
    assert f"dataset_preparation/labeling/labeling.py --check {folder}" in warning


# ---- validation ----

def make_table(groups):
    """Return a label table of {group: labels of its photographs}."""
    rows = [(f"{group}{i}.jpg", label, group) for group, labels in groups.items()
            for i, label in enumerate(labels)]
    return pd.DataFrame(rows, columns=["path", "label", "group"])


PAIRS = {f"{label}{letter}": [label] * 2 for label in range(3) for letter in "abcdefgh"}


@pytest.mark.parametrize("share, photographs", [(0.01, 2), (0.25, 4), (0.5, 8), (0.99, 14)])
def test_validation_has_its_share_of_every_class_in_whole_groups(labelled, share, photographs):
    """At least one group of each class is in validation, and at least one in training."""
    _, classes, _ = labelled
    train, validation = dataset.split_validation(make_table(PAIRS), classes, share, seed=1)
    assert validation["label"].value_counts().to_dict() == dict.fromkeys(range(3), photographs)
    assert not set(train["group"]) & set(validation["group"])
    assert len(train) + len(validation) == 48


def test_validation_never_takes_all_of_a_class(labelled):
    _, classes, _ = labelled
    table = make_table({**PAIRS, "2a": [2] * 2}).query("label < 2 or group in ('2a', '2b')")
    for seed in range(5):
        train, validation = dataset.split_validation(table, classes, 1.0, seed)
        assert set(train["label"]) == set(validation["label"]) == {0, 1, 2}


def test_validation_depends_on_the_seed_and_not_on_the_order_of_rows(labelled):
    _, classes, _ = labelled
    table, chosen = make_table(PAIRS), set()
    for seed in range(4):
        _, validation = dataset.split_validation(table, classes, 0.25, seed)
        shuffled = table.sample(frac=1, random_state=seed)
        again = dataset.split_validation(shuffled, classes, 0.25, seed)[1]
        assert set(again["path"]) == set(validation["path"])
        chosen.add(frozenset(validation["path"]))
    assert len(chosen) == 4


def test_a_group_of_several_classes_stays_in_training(labelled):
    """This holds for every seed, even if its size would make it the first or only choice."""
    _, classes, _ = labelled
    mixed = {"page": [0, 1], "album": [1, 2, 2], "pair": [0, 2]}
    for seed in range(20):
        train, validation = dataset.split_validation(make_table({**mixed, **PAIRS}), classes, 0.5,
                                                     seed)
        assert not set(mixed) & set(validation["group"])
        assert set(mixed) < set(train["group"])
        assert validation["label"].value_counts().to_dict() == {0: 8, 1: 8, 2: 8}


def test_a_class_of_one_group_is_trained_on_and_named(labelled, capsys):
    _, classes, _ = labelled
    table = make_table({**PAIRS, "page": [0, 1]})
    table = table[(table["label"] != 1) | table["group"].isin(["1a", "page"])]
    train, validation = dataset.split_validation(table, classes, 0.1, seed=1)
    assert set(validation["label"]) == {0, 2}
    assert set(train["label"]) == {0, 1, 2}
    assert "validation has no photographs of Rosa secunda" in capsys.readouterr().err
    with pytest.raises(InputError, match="every class has one group"):
        dataset.split_validation(make_table({"a": [0], "b": [1], "c": [2]}), classes, 0.1, seed=1)
    with pytest.raises(InputError, match="Rosa tertia has no training photographs"):
        dataset.split_validation(table[table["label"] < 2], classes, 0.1, seed=1)


# ---- items ----

def test_photographs_of_every_mode_and_format_can_be_loaded(labelled):
    folder, classes, s = labelled
    table = read(folder, classes)
    picture, exif = draw(1, (80, 60)), Image.Exif()
    exif[0x0112] = 6
    variants = {"L": picture.convert("L"), "CMYK": picture.convert("CMYK"),
                "P": picture.convert("P"), "RGBA": picture.convert("RGBA"),
                "rotated": picture.rotate(90, expand=True)}
    for i, (kind, image) in enumerate(variants.items()):
        data, options = io.BytesIO(), {"exif": exif} if kind == "rotated" else {}
        image.save(data, "PNG" if kind in ("P", "RGBA") else "JPEG", **options)
        Path(table["path"][i]).write_bytes(data.getvalue())
    train = dataset.PlantsDataset(table, View(32), 80, dataset.build_augmentation(s))
    evaluation = dataset.PlantsDataset(table, View(32), 80)
    for i, kind in enumerate(variants):
        assert train[(0, 0, i)][0].shape == evaluation[i][0].shape == (32, 32, 3)
        if kind != "L":
            wanted = torch.from_numpy(evaluation_view(picture, View(32))).float()
            assert (evaluation[i][0].float() - wanted).abs().mean() < 12, kind


def test_an_unreadable_photograph_is_named_also_from_a_worker(labelled):
    folder, classes, s = labelled
    table = read(folder, classes)
    bad = table["path"][7]
    Path(bad).write_bytes(jpeg(draw(1))[:500])
    s.num_workers = 1
    with pytest.raises(InputError) as raised:
        list(dataset.batches(dataset.build_eval_loader(table, s), CPU, s.mean, s.std))
    assert str(raised.value).startswith(bad)
    assert "\n" not in str(raised.value)


# ---- order and loaders ----

def test_an_epoch_is_every_photograph_once_in_an_order_of_seed_and_epoch():
    labels, orders = np.arange(30) % 3, {}
    for seed, epoch in ((1, 1), (1, 2), (2, 1)):
        order = dataset.EpochOrder(labels, "none", seed)
        order.set_epoch(epoch)
        epochs, draws, indices = zip(*order, strict=True)
        assert list(order) == list(zip(epochs, draws, indices, strict=True))
        assert set(epochs) == {epoch}
        assert draws == tuple(range(30))
        assert sorted(indices) == list(range(30))
        orders[seed, epoch] = indices
    assert len(set(orders.values())) == 3


def test_oversampling_sampling_and_class_weights_equalise_the_classes():
    labels = np.array([0] * 6 + [1] * 2 + [2])
    rng = np.random.default_rng(0)
    repeated = dataset.draw_indices(labels, "oversample", rng)
    assert np.bincount(labels[repeated]).tolist() == [6, 6, 6]
    assert set(range(9)) == set(repeated)
    assert len(dataset.EpochOrder(labels, "oversample", 1)) == 18
    drawn = labels[np.concatenate([dataset.draw_indices(labels, "sampling", rng)
                                   for _ in range(500)])]
    assert np.abs(np.bincount(drawn) / len(drawn) - 1 / 3).max() < 0.03
    weights = dataset.class_weights(labels, 3)
    assert torch.allclose(weights, torch.tensor([0.5, 1.5, 3.0]))
    assert weights[labels].mean().item() == pytest.approx(1.0)


@pytest.mark.parametrize("balance", ["none", "oversample", "sampling"])
@pytest.mark.parametrize("world_size, share", [(2, 3), (3, 4), (4, 2)])
def test_shards_of_a_step_make_up_the_batch_of_one_process(balance, world_size, share):
    """This holds in every epoch; each rank takes as many steps as a single process."""
    labels, batch_size = [0] * 20 + [1] * 11, world_size * share
    whole = dataset.EpochOrder(labels, balance, 7)
    shards = [dataset.EpochOrder(labels, balance, 7, rank, world_size)
              for rank in range(world_size)]
    for epoch in (1, 2):
        for order in (whole, *shards):
            order.set_epoch(epoch)
        draws, parts = list(whole), [list(shard) for shard in shards]
        lengths = {len(part) for part in parts} | {len(shard) for shard in shards}
        assert lengths == {len(whole) // world_size}
        assert len(parts[0]) // share == len(whole) // batch_size
        for step in range(len(draws) // batch_size):
            together = [draw for part in parts for draw in part[step * share:][:share]]
            assert sorted(together) == draws[step * batch_size:][:batch_size]


@pytest.mark.parametrize("batch_size, world_size, of_rank", [(6, 1, 6), (6, 2, 3), (7, 3, 2),
                                                            (0, 4, 4), (20, 4, 5)])
def test_ranks_share_a_batch_equally(labelled, batch_size, world_size, of_rank):
    """The shard is rounded down, and a batch of few photographs is at most one of 16: 4 x 4."""
    folder, classes, s = labelled
    s.batch_size = batch_size
    for rank in range(world_size):
        loader = dataset.build_train_loader(read(folder, classes), s, None, rank, world_size)
        assert {len(labels) for _, labels in loader} == {of_rank}


def test_an_epoch_of_few_photographs_has_thirty_steps(labelled):
    folder, classes, s = labelled
    s.batch_size, table = 0, read(folder, classes)
    for count, steps, size in ((24, 1, 16), (1224, 30, 40), (2880, 32, 90)):
        loader = dataset.build_train_loader(table.sample(count, replace=True, random_state=0), s)
        assert (len(loader), loader.batch_size) == (steps, size)


def test_a_batch_size_is_obeyed_up_to_all_photographs(labelled, capsys):
    folder, classes, s = labelled
    table = read(folder, classes).sample(400, replace=True, random_state=0)
    for wanted, size in ((2, 2), (64, 64), (400, 400), (5000, 400)):
        s.batch_size = wanted
        assert dataset.build_train_loader(table, s).batch_size == size
        assert ("400 photographs" in capsys.readouterr().err) == (wanted > size)


def test_a_batch_too_small_for_the_ranks_is_refused(labelled):
    folder, classes, s = labelled
    with pytest.raises(InputError, match="3 ranks .* --batch_size is 5 of 24"):
        dataset.build_train_loader(read(folder, classes), s, None, 0, 3)


AUGMENTED = {"trivial_augment": True, "color_jitter": 0.3, "erasing": 0.5}


@pytest.mark.parametrize("settings", [{}, AUGMENTED], ids=["crop and flip", "all operations"])
def test_pixels_do_not_depend_on_workers_ranks_batches_or_a_resume(labelled, settings):
    """Compare image by image, by draw: one process, two workers, two ranks, other batches."""
    folder, classes, s = labelled
    vars(s).update(settings)
    table = read(folder, classes)

    def images(workers=0, batch_size=5, rank=0, world_size=1, epochs=(4,)):
        s.num_workers, s.batch_size = workers, batch_size
        loader = dataset.build_train_loader(table, s, None, rank, world_size)
        for epoch in epochs:
            loader.sampler.set_epoch(epoch)
            draws = [draw for _, draw, _ in loader.sampler]
            batches = list(loader)
        items = [(image.numpy().tobytes(), label) for images, labels in batches
                 for image, label in zip(images, labels.tolist(), strict=True)]
        return dict(zip(draws, items, strict=False))  # a smaller last batch is dropped

    wanted = images(batch_size=6)
    assert len(wanted) == 24
    assert images() == {draw: wanted[draw] for draw in range(20)}
    assert images(workers=2, batch_size=6) == wanted
    assert images(batch_size=6, epochs=(1, 2, 3, 4)) == wanted, "as without a resume"
    assert {**images(rank=0, world_size=2, batch_size=6),
            **images(workers=1, rank=1, world_size=2, batch_size=6)} == wanted
    assert images(batch_size=6, epochs=(5,)) != wanted


def test_no_workers_are_started_where_a_cpu_trains_from_the_cache(labelled, monkeypatch):
    folder, classes, s = labelled
    s.num_workers, s.cache_dir = -1, folder / "cache"
    table = read(folder, classes)
    cache, workers = build_cache(table, s), process_count(0, at_most=8)
    for device, used, expected in (("cpu", cache, 0), ("cpu", None, workers),
                                   ("cuda", cache, workers)):
        monkeypatch.setattr(dataset, "pick_device", lambda _, name=device: torch.device(name))
        for build in (dataset.build_train_loader, dataset.build_eval_loader):
            assert build(table, s, used).num_workers == expected
    monkeypatch.undo()
    s.device, s.num_workers = "cpu", 3
    assert dataset.build_eval_loader(table, s, cache).num_workers == 3


def test_loaders_leave_the_generator_of_the_process_alone(labelled):
    folder, classes, s = labelled
    table, state = read(folder, classes), torch.get_rng_state()
    vars(s).update(AUGMENTED)
    list(dataset.build_train_loader(table, s))
    list(dataset.build_eval_loader(table, s))
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_are_normalised_by_mean_and_std(labelled):
    folder, classes, s = labelled
    table = read(folder, classes)
    loader = dataset.build_eval_loader(table, s)
    seen = list(dataset.batches(loader, CPU, s.mean, s.std))
    assert torch.cat([labels for _, labels in seen]).tolist() == table["label"].tolist()
    images = torch.cat([images for images, _ in seen])
    assert images.dtype == torch.float32
    assert seen[0][0].is_contiguous(memory_format=torch.channels_last)
    for i in (0, 23):
        raw = torch.from_numpy(evaluation_view(Image.open(table["path"][i]), View(32))) / 255
        wanted = ((raw - torch.tensor(s.mean)) / torch.tensor(s.std)).permute(2, 0, 1)
        assert torch.allclose(images[i], wanted, atol=1e-5)
