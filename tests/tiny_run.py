"""A run of train.py of seconds on the drawn dataset of `conftest.make_labelled`, and its curves."""
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def flags(folder, *more):
    """Return the flags of a tiny run in `folder`; later ones win."""
    values = {"class_table": folder / "classes.csv", "dataset_dir": folder / "dataset",
              "checkpoints_dir": folder / "checkpoints", "runs_dir": folder / "runs",
              "cache_dir": folder / "cache", "run": "tiny", "model": "plain_cnn",
              "initial_weights": "none", "image_size": 32, "batch_size": 6, "num_epochs": 3,
              "num_workers": 0, "device": "cpu"}
    return [*(text for name, value in values.items() for text in (f"--{name}", value)), *more]


def curves(folder, run="tiny"):
    """Return {tag: [(step, value)]} as TensorBoard shows them, without the times."""
    events = EventAccumulator(str(folder / "runs" / run))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"] if tag != "images_per_second"}
