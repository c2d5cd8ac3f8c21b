"""How accurate is the whole chain on real photographs, and how long does it take?

    python benchmarks/chain.py --photos DIR --weights FILE --seeds 5
    figure chain_accuracy 0.9556 fraction target >= 0.95 met
    figure chain_minutes_per_seed 7.1 minutes target <= 15 met

The scripts clean the photographs in DIR (one folder per class) and then, for every seed, label,
train and evaluate; the seed determines the split. Run the same command again to resume: finished
seeds are not repeated. The minutes are those of the slowest seed and include the cleaning and
labelling of all seeds.
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
    flags = parse(__doc__, argv, epochs=8, batch_size=0, test_per_class=12, workers=1)
    start = time.perf_counter()
    splits = prepare_splits(flags.work / "chain", flags)
    preparation = time.perf_counter() - start
    reports = [run_split(split, flags, preparation) for split in splits]
    print(f"{'seed':>4}  {'accuracy':>8}  {'95 % CI':>15}  {'macro-F1':>8}  {'NLL':>6}  minutes")
    for seed, report in enumerate(reports):
        low, high = report["interval"]
        print(f"{seed:4}  {report['accuracy']:8.4f}  {low:8.4f}-{high:.4f}  "
              f"{report['macro_f1']:8.4f}  {report['loss']:6.4f}  {report['seconds'] / 60:7.1f}")
    accuracy = [report["accuracy"] for report in reports]
    mean = statistics.mean(accuracy)
    deviation = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
    print(f"test accuracy {mean:.4f}, standard deviation {deviation:.4f} over {len(accuracy)} "
          "splits")
    minutes = max(report["seconds"] for report in reports) / 60
    return state([("chain_accuracy", mean, "fraction", ">=", 0.95),
                  ("chain_minutes_per_seed", minutes, "minutes", "<=", 15)])


def run_split(split, flags, preparation):
    """Train and evaluate on a split, unless done before; return the report with `seconds`."""
    folder, finished = split["folder"], split["folder"] / "chain.json"
    if finished.exists():
        return json.loads(finished.read_text("utf-8"))
    start = time.perf_counter()
    settings = {**split["settings"], "checkpoints_dir": folder / "checkpoints",
                "runs_dir": folder / "runs", "run": "chain", "num_epochs": flags.epochs,
                "batch_size": flags.batch_size, "num_workers": flags.workers,
                "initial_weights": flags.weights}
    write_text(folder / "settings.json", json.dumps(settings, default=str))
    for script in ("train.py", "evaluate.py"):
        print(run_script(script, "--settings", folder / "settings.json"), flush=True)
    report = json.loads((folder / "runs/chain/report.json").read_text("utf-8"))
    report["seconds"] = time.perf_counter() - start + preparation
    write_text(finished, json.dumps(report))
    return report


if __name__ == "__main__":
    sys.exit(main())
