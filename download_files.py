"""Download the published photographs and model into data/dataset/ and checkpoints/downloaded/.

    python download_files.py                        # about 274 MB; run it again to resume
    python download_files.py --checkpoint_url ""    # the photographs alone
    python download_files.py --replace_downloaded   # again; the old ones are moved, never deleted

An archive that you downloaded another way is used, and kept, if it is where the script would save
it: data/dataset.zip or checkpoints/downloaded/plants_model.pth.tar.zip. The last lines count the
photographs and name the next command:

    next: python evaluate.py tests the downloaded model, python train.py trains a new one
"""
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import config
from dataset_preparation.parsing import archives
from dataset_preparation.parsing.connections import build_network_access
from dataset_preparation.parsing.safe_download import Limits, trusting_web
from dataset_preparation.parsing.stopping import stopped_by_signal
from names import leaves_folder, table_path
from settings.command_line import next_command
from utils import InputError, describe_error, read_table, run, set_aside


class Published(NamedTuple):
    """A published archive and its content."""

    name: str  # DATASET or CHECKPOINT, the prefix of its settings
    url: str  # of the archive; "" = skip
    sha256: str  # of the archive; "" = not checked
    target: Path  # folder or file that it unpacks to
    find: Callable  # folder -> the paths in it that may be the target
    missing: Callable  # folder -> files missing from it
    companions: tuple = ()  # names of files next to it that are also kept

    def is_there(self):
        """Return whether the target exists; for a dataset, whether its table does."""
        table = self.target / "train_labels.csv"
        return table.is_file() if self.name == "DATASET" else self.target.exists()


def main(argv=None):
    """Download and unpack both archives, count the photographs and name the next command."""
    s, given = config.parse(argv, __file__, __doc__)
    dataset, checkpoint = build_published(s)
    web = trusting_web(Limits(s.download_timeout, s.download_timeout), build_network_access(s))
    with stopped_by_signal():
        for published in (dataset, checkpoint):
            obtain(published, web, s.download_attempts, s.max_unpacked_gb * 1e9,
                   s.replace_downloaded)
    if dataset.is_there():
        train, test = (len(read_table(dataset.target / f"{side}_labels.csv", ("path", "label")))
                       for side in ("train", "test"))
        print(f"{dataset.target}: {train:,} photographs in train, {test:,} in test")
        if checkpoint.target.exists():
            tested = next_command("evaluate.py", {**given, "CHECKPOINT": checkpoint.target})
            print(f"next: {tested} tests the downloaded model,")
        print(f"next: {next_command('train.py', given)} trains a new one")


def build_published(s):
    """Return the dataset and the checkpoint of the settings."""
    return (Published("DATASET", s.dataset_url, s.dataset_sha256, s.dataset_dir, find_datasets,
                      missing_photographs),
            Published("CHECKPOINT", s.checkpoint_url, s.checkpoint_sha256,
                      s.checkpoints_dir / "downloaded/plants_model.pth.tar", find_checkpoints,
                      lambda folder: [], ("classes.csv", "README.md")))


def find_datasets(folder):
    """Return the folders, at any depth, that contain both label tables."""
    return [table.parent for table in folder.rglob("train_labels.csv")
            if table.with_name("test_labels.csv").is_file()]


def missing_photographs(folder):
    """Return the paths in the label tables of the dataset in a folder that do not exist.

    Raises InputError for a path that leads out of the dataset, to a file of this machine.
    """
    datasets = find_datasets(folder)
    paths = [table_path(row["path"]) for side in ("train", "test") if len(datasets) == 1
             for row in read_table(datasets[0] / f"{side}_labels.csv", ("path", "label"))]
    if outside := next(filter(leaves_folder, paths), ""):
        raise InputError(f"the dataset lists {outside}, which lies outside it; it is not used, "
                         "check DATASET_URL")
    return [path for path in paths if not (datasets[0] / path).is_file()]


def find_checkpoints(folder):
    """Return the checkpoint files at any depth, without the twins (._name) that macOS packs."""
    return [path for path in folder.rglob("[!.]*")
            if path.name.endswith((".pth.tar", ".pth", ".pt"))]


def obtain(published, web, attempts, max_bytes, replace):
    """Download and unpack a published archive, unless its target exists and may not be replaced."""
    target = published.target
    if not published.url:
        print(f"{target} is not downloaded: {published.name}_URL is empty")
        return
    archive, work = archives.beside(target, ".zip"), archives.beside(target, ".unpacking")
    with archives.lock_of(target, f"downloads {target}"):
        shutil.rmtree(work, ignore_errors=True)  # of a killed run
        if published.is_there() and not replace:
            print(f"{target} exists and is kept as it is; --replace_downloaded moves it aside and "
                  "downloads it again")
        else:
            sha256 = archives.download_archive(web, published.url, archive, published.sha256,
                                               attempts)
            print(f"SHA-256 {sha256} " + ("as expected" if published.sha256 else
                                          f"not checked, {published.name}_SHA256 can pin it"))
            try:
                put_in_place(published, archive, work, max_bytes)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        archives.forget(archive)


def put_in_place(published, archive, work, max_bytes):
    """Unpack an archive into the folder `work` and move its content to the target."""
    target = published.target
    try:
        missing = archives.unpack(archive, work, max_bytes, published.missing)
        found = published.find(work)
        if len(found) != 1:
            raise InputError(f"{archive} contains {len(found)} {published.name.lower()}s, expected "
                             f"1; it is kept, check {published.name}_URL")
        if missing:
            raise InputError(f"{archive} lacks {len(missing):,} photographs that its tables name, "
                             f"first {missing[0]}; it is kept, check {published.name}_URL")
        companions = [found[0].with_name(name) for name in published.companions]
        for source in (found[0], *filter(Path.is_file, companions)):
            place = target if source == found[0] else target.with_name(source.name)
            if place.exists():
                print(f"{place} is kept as {set_aside(place, place.parent)}")
            os.replace(source, place)
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive} is damaged ({error}); it is kept as "
                         f"{archives.reject(archive)}, run the same command again to download it"
                         ) from None
    except OSError as error:
        raise InputError(f"cannot unpack {archive}, which is kept for the same command: "
                         f"{describe_error(error)}") from None


if __name__ == "__main__":
    run(main)
