"""How often do cleaning and labelling read, decode, fingerprint and hash photographs?

    python benchmarks/natural_path.py --photos DIR
    figure natural_path_reads_unchanged 0 reads target <= 0 met

70 photographs of DIR are cleaned and labelled; then both steps run again with nothing changed.
Counted are photographs opened for reading, decoded and fingerprinted, and SHA-256 digests of more
than 1,000 bytes (a label table counts, a name does not). --repository counts another checkout.
"""
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import ROOT, parse, state
from utils import write_table

SCRIPTS = {"cleaning": "dataset_preparation/cleaning/cleaning.py",
           "labelling": "dataset_preparation/labeling/labeling.py"}
KINDS = ("read", "decode", "fingerprint", "sha256")


def main(argv=None):
    flags = parse(__doc__, argv, repository=str(ROOT), count=70)
    with TemporaryDirectory() as folder:
        count = collect(flags.photos, Path(folder), flags.count)
        print(f"{count} photographs; {'':24}" + "".join(f"{kind:>12}" for kind in KINDS))
        counts = {}
        for run in ("first run", "unchanged"):
            for step, script in SCRIPTS.items():
                log = Path(folder) / f"{step} {run}"
                counts[step, run] = Counter(what for what, _ in count_accesses(
                    log, Path(flags.repository) / script, *options(Path(folder), step)))
                print(f"{step + ', ' + run:40}" + "".join(
                    f"{counts[step, run][kind]:12}" for kind in KINDS))
    again = counts["cleaning", "unchanged"] + counts["labelling", "unchanged"]
    whole = counts["cleaning", "first run"] + counts["labelling", "first run"]
    return state([
        ("natural_path_reads_unchanged", again["read"], "reads", "<=", 0),
        ("natural_path_decodes_unchanged", again["decode"], "decodes", "<=", 0),
        ("natural_path_decodes", whole["decode"] / count, "per photograph", "<=", 1),
        ("natural_path_fingerprints", whole["fingerprint"] / count, "per photograph", "<=", 1)])


def collect(photos, folder, count):
    """Copy photographs of every class in turn to `folder`/collected; return their number."""
    by_class = {path.name: sorted(path.iterdir()) for path in sorted(photos.iterdir())
                if path.is_dir()}
    turns = [(name, files[i]) for i in range(count) for name, files in by_class.items()
             if i < len(files)]
    for name, file in turns[:count]:
        target = folder / "collected/images" / name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    write_table(folder / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(by_class)])
    return len(turns[:count])


def options(folder, step):
    """Return the flags of a step."""
    flags = ["--collected_dir", folder / "collected", "--cleaned_dir", folder / "cleaned",
             "--class_table", folder / "classes.csv", "--processes", "2"]
    if step == "labelling":
        flags += ["--dataset_dir", folder / "dataset", "--test_per_class", "1"]
    return flags


def count_accesses(log, script, *arguments):
    """Run a script and return [(what, path)] of what it did with photographs."""
    command = [sys.executable, Path(__file__).with_name("count_accesses.py"), log, script,
               *arguments]
    log.unlink(missing_ok=True)
    subprocess.run([str(one) for one in command], stdout=subprocess.DEVNULL, check=True)
    return [tuple(line.split("\t")) for line in log.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
