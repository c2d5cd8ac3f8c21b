"""Cleaning and labelling of a folder of the tests, with the flags that each script takes."""
from PIL import Image

from dataset_preparation.cleaning import cleaning
from dataset_preparation.labeling import labeling
from settings.scripts import settings_of
from tests.conftest import NAMES, write_classes
from utils import read_table

CLEANING = "dataset_preparation/cleaning/cleaning.py"
LABELING = "dataset_preparation/labeling/labeling.py"


def flags(script, folder, out=None, **values):
    """Return the flags by which a script works on `folder`/collected and in `out` (or `folder`).

    Of `values` (setting=value) those are left out that the script does not take.
    """
    out = out or folder
    values = {"collected_dir": folder / "collected", "cleaned_dir": out / "cleaned",
              "dataset_dir": out / "dataset", "class_table": folder / "classes.csv",
              "processes": 2, "test_per_class": 3, **values}
    taken = {name.lower() for names in settings_of(script.split("/")[-1]).values()
             for name in names}
    return [str(word) for name, value in values.items() if name in taken
            for word in (f"--{name}", value)]


def clean(folder, *more):
    """Clean `folder`/collected in this process; return {file: row} of cleaned.csv."""
    if not (folder / "classes.csv").exists():
        write_classes(folder / "classes.csv", NAMES)
    cleaning.main([*flags(CLEANING, folder), *more])
    return {row["file"]: row for row in read_table(folder / "cleaned/cleaned.csv")}


def label(folder, *more):
    """Label what was cleaned, in this process; return {path: row} of both label tables."""
    labeling.main([*flags(LABELING, folder), *more])
    return {row["path"]: row for side in ("train", "test")
            for row in read_table(folder / f"dataset/{side}_labels.csv", labeling.COLUMNS)}


def without_times(files):
    """Return a snapshot in which known_files.csv lacks the modification times of the files."""
    return {name: b"\n".join(b",".join(line.split(b",")[:2] + line.split(b",")[3:])
                             for line in data.splitlines())
            if name.endswith("known_files.csv") else data for name, data in files.items()}


def write_large(path, folder):
    """Write a photograph at twice its size to a folder, so that its parts are large enough."""
    with Image.open(path) as image:
        large = image.convert("RGB").resize((image.width * 2, image.height * 2))
    large.save(folder / path.name, quality=92)
    return large
