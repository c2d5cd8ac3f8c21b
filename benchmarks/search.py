"""What does pruning save the search? The same study with and without it, at equal trials.

    python benchmarks/search.py --seeds 5          # a drawn flora, the small network from scratch
    figure search_epochs 0.4925 of_unpruned target <= 0.6 met

hyperparameter_optimization.py runs two studies per seed, which differ only in SEARCH_PRUNER.
Compared are their epochs, because the machine may do other work that would distort seconds.
`search_loss_excess` is the best validation loss with pruning minus that without, averaged over the
seeds; its target is one standard error of that mean. Run the same command again to resume.
"""
import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import ROOT, run_script, state
from quickstart_flora.kinds import KINDS
from quickstart_flora.photographs import photograph
from utils import atomic_path, write_table


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "data/benchmarks",
                        help="folder for datasets, runs and checkpoints")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 [3]")
    parser.add_argument("--trials", type=int, default=50, help="trials per study [50]")
    parser.add_argument("--epochs", type=int, default=8, help="epochs per unpruned trial [8]")
    parser.add_argument("--kinds", type=int, default=5, help="kinds of drawn plants, at most 6 [5]")
    parser.add_argument("--per_class", type=int, default=60, help="photographs drawn per kind [60]")
    parser.add_argument("--image_size", type=int, default=32, help="pixels [32]")
    parser.add_argument("--jobs", type=int, default=2, help="studies at a time [2]")
    flags = parser.parse_args(argv)
    folder = flags.work.absolute() / "search"
    draw(folder, flags)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    studies = list(product(range(flags.seeds), ("none", "halving")))
    with ThreadPoolExecutor(flags.jobs) as pool:
        results = dict(zip(studies, pool.map(partial(search, folder, flags), studies), strict=True))
    print("seed  pruner     epochs  pruned trials  best val loss  accuracy")
    for (seed, pruner), result in results.items():
        print(f"{seed:4}  {pruner:10} {result['epochs']:6}  {result['pruned']:13}  "
              f"{result['loss']:13.4f}  {result['accuracy']:8.4f}")
    epochs = {pruner: sum(results[seed, pruner]["epochs"] for seed in range(flags.seeds))
              for pruner in ("none", "halving")}
    excess = [results[seed, "halving"]["loss"] - results[seed, "none"]["loss"]
              for seed in range(flags.seeds)]
    error = statistics.stdev(excess) / len(excess) ** 0.5
    share = epochs["halving"] / epochs["none"]
    return state([("search_epochs", share, "of_unpruned", "<=", 0.6),
                  ("search_loss_excess", statistics.mean(excess), "nats", "<=", error)])


def draw(folder, flags):
    """Draw the photographs that are missing, 64 px on the shorter side, and write their tables."""
    kinds = list(KINDS)[:flags.kinds]
    (folder / "dataset/train").mkdir(parents=True, exist_ok=True)
    write_table(folder / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(kinds)])
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(draw_kind, folder / "dataset/train", flags.per_class), kinds))
    write_table(folder / "dataset/train_labels.csv", ("path", "label", "latin", "group"),
                [{"path": f"train/{name}/{number:03}.jpg", "label": label, "latin": name,
                  "group": f"{label}.{number}"}
                 for label, name in enumerate(kinds) for number in range(flags.per_class)])


def draw_kind(folder, count, name):
    """Draw the photographs of a kind, each a function of its number alone."""
    (folder / name).mkdir(exist_ok=True)
    for number in range(count):
        path = folder / name / f"{number:03}.jpg"
        if not path.exists():
            image = photograph(name, np.random.default_rng([list(KINDS).index(name), number]))
            image.thumbnail((96, 64) if image.width > image.height else (64, 96))
            with atomic_path(path) as temporary:
                image.save(temporary, "JPEG", quality=92)


def search(folder, flags, study):
    """Run or resume the study of (seed, pruner); return its epochs and its best result."""
    seed, pruner = study
    name = f"{pruner}_{seed}"
    run_script("hyperparameter_optimization.py", "--class_table", folder / "classes.csv",
               "--dataset_dir", folder / "dataset", "--runs_dir", folder / "runs",
               "--checkpoints_dir", folder / "checkpoints", "--cache_dir", folder / "cache",
               "--search_study", name, "--search_pruner", pruner, "--search_trials", flags.trials,
               "--search_models", "plain_cnn", "--initial_weights", "none", "--num_epochs",
               flags.epochs, "--image_size", flags.image_size, "--validation_share", 0.3,
               "--seed", seed, "--num_workers", 0, "--device", "cpu")
    path = folder / "runs" / name / "study.db"
    found = optuna.load_study(study_name=name, storage=f"sqlite:///{path}")
    trials = found.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    return {"epochs": sum(len(trial.intermediate_values) for trial in trials),
            "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
            "loss": found.best_value,
            "accuracy": found.best_trial.user_attrs["best"]["accuracy"]}


if __name__ == "__main__":
    sys.exit(main())
