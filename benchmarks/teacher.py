"""What is a teacher worth? A small network alone, and taught by a larger one.

    python benchmarks/teacher.py --photos DIR --teacher_weights FILE --weights FILE --seeds 3
    figure accuracy_gained_by_a_teacher 0.033 fraction target >= 0.02 met

The photographs in DIR (one folder per class) are cleaned and labelled once per seed, which also
seeds the runs. On every split the scripts train the teacher (--teachers of them, with different
seeds), the student alone, and the student taught, for as many epochs as alone. --ways are pairs of
temperature and weight: all are tried on the first split, and the one with the lowest validation
loss there is used on the others. evaluate.py then predicts the test set with each network. Run the
same command again to resume.
"""
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import parse, prepare_splits, run_script, state
from training.checkpoints import BEST, LAST, load_checkpoint

KEYS = ("accuracy", "loss_after", "ece_after")  # of report.json, the latter two calibrated


def main(argv=None):
    flags = parse(__doc__, argv, teacher_model="mobilenet_v3_large", teacher_weights="none",
                  model="mobilenet_v3_small", teachers=1, teacher_epochs=10, epochs=20,
                  image_size=224, batch_size=0, test_per_class=30, ways="2:0.5,2:0.9,4:0.9")
    splits = prepare_splits(flags.work / flags.photos.name, flags)
    ways, results = flags.ways.split(","), {}
    for split in splits:
        teachers = [train_once(split, flags, f"teacher{number}", number, "teacher")
                    for number in range(flags.teachers)]
        train_once(split, flags, "alone")
        for way in ways:
            train_once(split, flags, way.replace(":", "_"), taught=(*way.split(":"), teachers))
        if len(ways) > 1:
            losses = {way: load_checkpoint(folder_of(split, way.replace(":", "_")) / BEST)
                      ["metrics"]["calibrated_loss"] for way in ways}
            print(f"{split['folder'].name}: validation loss by temperature:weight {losses}")
            ways = [min(losses, key=losses.get)]
        names = [*(path.parent.name for path in teachers), "alone", ways[0].replace(":", "_")]
        for name in names:
            results.setdefault(name, []).append(test_once(split, name))
            print(split["folder"].name, name, results[name][-1], flush=True)
    return state(judge(results, ways[0].replace(":", "_")))


def folder_of(split, name):
    """Return the folder of a run's checkpoints."""
    return split["folder"] / "checkpoints" / name


def train_once(split, flags, name, number=0, who="student", taught=None):
    """Train a run unless it is finished; return its checkpoint.

    `taught` is (temperature, weight, checkpoints of the teachers); `number` changes the seed.
    """
    best, last = (folder_of(split, name) / file for file in (BEST, LAST))
    if last.exists() and load_checkpoint(last)["finished"]:
        return best
    teacher = who == "teacher"
    options = ["--class_table", split["settings"]["class_table"],
               "--dataset_dir", split["settings"]["dataset_dir"],
               "--split_seed", split["settings"]["split_seed"],
               "--seed", split["settings"]["seed"] + 100 * number,
               "--model", flags.teacher_model if teacher else flags.model,
               "--initial_weights", flags.teacher_weights if teacher else flags.weights,
               "--num_epochs", flags.teacher_epochs if teacher else flags.epochs,
               "--image_size", flags.image_size, "--batch_size", flags.batch_size,
               "--checkpoints_dir", split["folder"] / "checkpoints", "--run", name,
               "--runs_dir", split["folder"] / "runs", "--cache_dir", flags.work / "cache"]
    if taught:
        temperature, weight, teachers = taught
        options += ["--teacher", ",".join(map(str, teachers)), "--teacher_temperature", temperature,
                    "--teacher_weight", weight]
    print(split["folder"].name, name, run_script("train.py", *options), flush=True)
    return best


def test_once(split, name):
    """Return the numbers KEYS of a run on the test photographs."""
    report = split["folder"] / "runs" / name / "report.json"
    if not report.exists():
        run_script("evaluate.py", "--class_table", split["settings"]["class_table"],
                   "--dataset_dir", split["settings"]["dataset_dir"], "--report_photos", 0,
                   "--checkpoint", folder_of(split, name) / BEST,
                   "--runs_dir", split["folder"] / "runs")
    numbers = json.loads(report.read_text("utf-8"))
    return {key: round(numbers[key], 4) for key in KEYS}


def judge(results, way):
    """Print a line per network; return the figures of the taught student against it alone."""
    for name, rows in results.items():
        means = (statistics.mean(row[key] for row in rows) for key in KEYS)
        print("{:10} accuracy {:.3f}  NLL {:.3f}  ECE {:.3f}".format(name, *means))
    alone, taught = results["alone"], results[way]
    gains = {key: [after[key] - before[key] for before, after in zip(alone, taught, strict=True)]
             for key in KEYS}
    for key, values in gains.items():
        print(f"taught - alone, {key} per split: {', '.join(f'{value:+.3f}' for value in values)}")
    return [("accuracy_gained_by_a_teacher", statistics.mean(gains["accuracy"]), "fraction", ">=",
             0.02),
            ("nll_gained_by_a_teacher", -statistics.mean(gains["loss_after"]), "nats", ">=", 0.0)]


if __name__ == "__main__":
    sys.exit(main())
