"""Label tables, validation, items, order, loaders."""
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import config
import dataset
from images import evaluation_view
from tests.conftest import NAMES, draw, jpeg, make_labelled, write_classes
from utils import InputError, read_classes


@pytest.fixture
def made(tmp_path):
    """Return (folder, classes, settings) of a small labelled dataset."""
    make_labelled(tmp_path)
    classes = read_classes(write_classes(tmp_path / "classes.csv", NAMES))
    return tmp_path, classes, config.namespace(image_size=32, batch_size=5, num_workers=0, seed=3)


def read(folder, classes):
    return dataset.read_labels(folder / "train_labels.csv", classes)


def test_labels_are_read_with_their_groups(made):
    folder, classes, _ = made
    frame = read(folder, classes)
    assert len(frame) == 24
    assert frame["group"].nunique() == 24
    assert list(frame["label"].value_counts()) == [8, 8, 8]


@pytest.mark.parametrize("replace, by, said", [
    ("path,label", "file,label", "no column 'path'"),
    (",2,Rosa tertia", ",3,Rosa tertia", "not one of 0 to 2; .*--class_table and --limit_classes"),
    (",2,Rosa tertia", ",zwei,Rosa tertia", "not one of 0 to 2"),
    (",2,Rosa tertia", ",1,Rosa tertia", "contradicts"),
    ("_train_2.jpg", "_train_1.jpg", "twice"), ("_train_2.jpg", "_train_77.jpg", "does not exist"),
    ("train/Rosa", "/train/Rosa", "outside"), ("train/Rosa", "train/../../Rosa", "outside")])
def test_bad_rows_are_named(made, replace, by, said):
    folder, classes, _ = made
    table = folder / "train_labels.csv"
    table.write_text(table.read_text().replace(replace, by, 1))
    with pytest.raises(InputError, match=said) as raised:
        read(folder, classes)
    assert str(table) in str(raised.value)


def test_missing_empty_and_unfinished_tables(made):
    folder, classes, _ = made
    table = folder / "train_labels.csv"
    (folder / "labels.journal").touch()
    with pytest.raises(InputError, match="interrupted"):
        read(folder, classes)
    (folder / "labels.journal").unlink()
    for damage, said in ((b"", "no column 'path'"), ("path,label\nроза,1\n".encode("cp1251"), "UTF-8"),
                         (b"path,label\na,1\nb,2,3,4\n", "line 3")):
        table.write_bytes(damage)
        with pytest.raises(InputError, match=said):
            read(folder, classes)
    table.write_text("path,label\n")
    with pytest.raises(InputError, match="no photographs"):
        read(folder, classes)
    table.unlink()
    with pytest.raises(InputError, match="download_files.py"):
        read(folder, classes)


def test_a_table_of_path_and_label_only(made, capsys):
    folder, classes, _ = made
    table = folder / "train_labels.csv"
    lines = [",".join(line.split(",")[:2]) for line in table.read_text().splitlines()]
    table.write_text("\r\n".join(lines).replace("/", "\\"))  # as Windows writes it
    frame = read(folder, classes)
    assert set(frame["group"]) == {line.split(",")[0].replace("\\", "/") for line in lines[1:]}
    said = capsys.readouterr().err
    assert "no column 'group'" in said
    assert f"dataset_preparation/labeling/labeling.py --check {folder}" in said


def test_validation_is_whole_groups_of_every_class_and_stays(made):
    folder, classes, _ = made
    frame = read(folder, classes)
    frame["group"] = frame["label"].astype(str) + "g" + (frame.groupby("label").cumcount() // 2).astype(str)
    train, val = dataset.split_validation(frame, classes, 0.25, seed=1)
    assert list(val["label"].value_counts()) == [2, 2, 2]
    assert not set(train["group"]) & set(val["group"])
    again = dataset.split_validation(frame.sample(frac=1, random_state=0), classes, 0.25, seed=1)[1]
    assert set(again["path"]) == set(val["path"])
    tiny = dataset.split_validation(frame, classes, 0.01, seed=1)[1]
    assert tiny["label"].nunique() == 3  # at least one group of each
    frame.loc[frame["label"] < 2, "group"] = frame["group"].str.replace("[01]g0", "page", regex=True)
    train, val = dataset.split_validation(frame, classes, 0.25, seed=1)
    assert "page" not in set(val["group"])  # a group of two classes is never validation
    assert sorted(set(train["label"])) == sorted(set(val["label"])) == [0, 1, 2]
    frame.loc[frame["label"] == 1, "group"] = "one"
    with pytest.raises(InputError, match="Rosa secunda has 1 groups"):
        dataset.split_validation(frame, classes, 0.1, seed=1)


def test_items_are_a_function_of_seed_epoch_and_draw(made):
    folder, classes, s = made
    items = dataset.PlantsDataset(read(folder, classes), 32, 80, dataset.build_augmentation(s), seed=3)
    torch.manual_seed(0)
    first, label = items[(1, 5, 2)]
    assert (first.shape, first.dtype, label) == ((3, 32, 32), torch.uint8, 0)
    state = torch.get_rng_state()
    assert torch.equal(items[(1, 5, 2)][0], first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(items[(2, 5, 2)][0], first)
    assert not torch.equal(items[(1, 6, 2)][0], first)


def test_every_kind_of_file_is_an_item(made):
    folder, classes, s = made
    frame = read(folder, classes)
    picture, exif = draw(1, (80, 60)), Image.Exif()
    exif[0x0112] = 6
    variants = {"L": picture.convert("L"), "CMYK": picture.convert("CMYK"), "P": picture.convert("P"),
                "RGBA": picture.convert("RGBA"), "turned": picture.rotate(90, expand=True)}
    for place, (kind, image) in enumerate(variants.items()):
        data = io.BytesIO()
        image.save(data, "PNG" if kind in ("P", "RGBA") else "JPEG", **({"exif": exif} if kind == "turned" else {}))
        (folder / frame["path"][place]).write_bytes(data.getvalue())
    train = dataset.PlantsDataset(frame, 32, 80, dataset.build_augmentation(s))
    evaluation = dataset.PlantsDataset(frame, 32, 80)
    for place, kind in enumerate(variants):
        assert train[(0, 0, place)][0].shape == evaluation[place][0].shape == (3, 32, 32)
        if kind != "L":
            wanted = torch.from_numpy(evaluation_view(picture, 32)).permute(2, 0, 1)
            assert (evaluation[place][0].float() - wanted.float()).abs().mean() < 12, kind


def test_an_unreadable_photograph_is_named_also_from_a_worker(made):
    folder, classes, s = made
    frame = read(folder, classes)
    bad = frame["path"][7]
    Path(bad).write_bytes(jpeg(draw(1))[:500])
    s.num_workers = 1
    with pytest.raises(InputError) as raised:
        list(dataset.batches(dataset.build_eval_loader(frame, s), torch.device("cpu"), s.mean, s.std))
    assert str(raised.value).startswith(bad)
    assert "\n" not in str(raised.value)


def test_order_and_balance():
    labels = np.array([0] * 6 + [1] * 2 + [2])
    order = dataset.EpochOrder(labels, "none", seed=1)
    order.set_epoch(1)
    first = list(order)
    assert first == list(order)
    assert sorted(index for _, _, index in first) == list(range(9))
    order.set_epoch(2)
    assert [index for _, _, index in order] != [index for _, _, index in first]
    rng = np.random.default_rng(0)
    repeated = dataset.draw_indices(labels, "oversample", rng)
    assert np.bincount(labels[repeated]).tolist() == [6, 6, 6]
    assert set(range(9)) == set(repeated)
    assert len(dataset.EpochOrder(labels, "oversample", 1)) == 18
    drawn = labels[np.concatenate([dataset.draw_indices(labels, "sampling", rng) for _ in range(500)])]
    assert np.abs(np.bincount(drawn) / len(drawn) - 1 / 3).max() < 0.03
    weights = dataset.class_weights(labels, 3)
    assert torch.allclose(weights, torch.tensor([0.5, 1.5, 3.0]))
    assert weights[labels].mean().item() == pytest.approx(1.0)


def test_batches_are_normalised_and_the_same_with_workers(made):
    folder, classes, s = made
    frame = read(folder, classes)
    seen = {}
    for workers in (0, 2):
        s.num_workers = workers
        loader = dataset.build_train_loader(frame, s)
        loader.sampler.set_epoch(4)
        seen[workers] = list(dataset.batches(loader, torch.device("cpu"), s.mean, s.std))
    assert len(seen[0]) == 4  # 24 photographs in batches of 5, the last 4 left out
    for (images, labels), (others, other_labels) in zip(seen[0], seen[2], strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)
    assert images.is_contiguous(memory_format=torch.channels_last)
    evaluation, _ = next(dataset.batches(dataset.build_eval_loader(frame, s), torch.device("cpu"), s.mean, s.std))
    raw = torch.from_numpy(evaluation_view(Image.open(frame["path"][0]), 32)).permute(2, 0, 1) / 255
    wanted = (raw - torch.tensor(s.mean).view(3, 1, 1)) / torch.tensor(s.std).view(3, 1, 1)
    assert torch.allclose(evaluation[0], wanted, atol=1e-5)


def test_unknown_balance_is_refused(made):
    folder, classes, s = made
    s.balance = "both"
    with pytest.raises(InputError, match="oversample"):
        dataset.build_train_loader(read(folder, classes), s)
