"""The whole chain on real photographs, the seed choosing the split: cleaning, labelling, training, evaluation.

    python benchmarks/chain.py --photos DIR --weights FILE --seeds 5
    figure chain_accuracy 0.9556 fraction target >= 0.95 met
    figure chain_minutes_per_seed 7.1 minutes target <= 15 met

DIR holds one folder of photographs per class. Killed, the same command goes on; a seed that is done is not run again.
The minutes are those of the slowest seed, with cleaning and labelling of all.
"""
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import parse, prepare_splits, run_script, state
from utils import write_text


def main(argv=None):
    flags = parse(__doc__, argv, epochs=8, batch_size=32, test_per_class=12, workers=1)
    began = time.perf_counter()
    splits = prepare_splits(flags.work / "chain", flags)
    preparing = time.perf_counter() - began
    reports = [run_split(split, flags, preparing) for split in splits]
    print(f"{'seed':>4}  {'accuracy':>8}  {'95 % interval':>16}  {'macro-F1':>8}  {'NLL':>6}  minutes")
    for seed, report in enumerate(reports):
        low, high = report["interval"]
        print(f"{seed:4}  {report['accuracy']:8.4f}  {low:7.4f}-{high:.4f}  {report['macro_f1']:8.4f}  "
              f"{report['loss']:6.4f}  {report['seconds'] / 60:7.1f}")
    accuracy = [report["accuracy"] for report in reports]
    spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
    print(f"test accuracy {statistics.mean(accuracy):.4f}, standard deviation {spread:.4f} over {len(accuracy)} splits")
    return state([("chain_accuracy", statistics.mean(accuracy), "fraction", ">=", 0.95),
                  ("chain_minutes_per_seed", max(report["seconds"] for report in reports) / 60, "minutes", "<=", 15)])


def run_split(split, flags, preparing):
    """Train and evaluate on one split, unless done before; return the report with `seconds`."""
    folder, done = split["folder"], split["folder"] / "chain.json"
    if done.exists():
        return json.loads(done.read_text("utf-8"))
    began = time.perf_counter()
    settings = {**split["settings"], "checkpoints_dir": folder / "checkpoints", "runs_dir": folder / "runs",
                "run": "chain", "num_epochs": flags.epochs, "batch_size": flags.batch_size,
                "num_workers": flags.workers, "initial_weights": flags.weights}
    options = [text for name, value in settings.items() for text in (f"--{name}", value)]
    print(run_script("train.py", *options))
    print(run_script("evaluate.py", *options), flush=True)
    report = json.loads((folder / "runs/chain/report.json").read_text("utf-8"))
    report["seconds"] = time.perf_counter() - began + preparing
    write_text(done, json.dumps(report))
    return report


if __name__ == "__main__":
    sys.exit(main())
