"""How fast do ONNX Runtime and PyTorch predict on the CPU, and how soon does predict.py answer?

    python benchmarks/inference.py --photos DIR --weights FILE
    figure onnx_over_eager_batch_1 2.924 times target >= 2.5 met

export.py exports a network of 50 classes and checks it on the photographs in DIR. ONNX Runtime and
eager and compiled PyTorch then take turns on the same views; figures are ratios of median times.
They use all cores available to the process (`taskset -c 0` leaves one). Without --weights the
network is random, at the same speed. Compiling needs a C++ compiler; without one its figures are
left out.
"""
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
import export
from benchmarks.common import ROOT, measure, parse, state, take_turns
from evaluation.predictor import load_onnx, load_pytorch
from images import IMAGENET_MEAN, IMAGENET_STD
from model import build_model, load_initial_weights
from predict import find_photos, read_view
from training.checkpoints import save_checkpoint

BATCHES = (1, 32)


def main(argv=None):
    flags = parse(__doc__, argv, model="mobilenet_v3_large", rounds=30, starts=7)
    checkpoint = write_checkpoint(flags.work / "inference/plants_model.pth.tar", flags)
    photos = list(find_photos([str(flags.photos)]))[:BATCHES[-1]]
    export.main(["--checkpoint", str(checkpoint), "--check_photos", str(flags.photos)])
    onnx = checkpoint.with_suffix("").with_suffix(".onnx")

    s = config.namespace(checkpoint=str(checkpoint), device="cpu")
    trained = load_pytorch(s)
    views = np.stack([read_view(path, trained.view, s) for path in photos])
    views = np.resize(views, (BATCHES[-1], *views.shape[1:]))  # repeated if the photographs are few
    ways = {"ONNX Runtime": load_onnx(onnx).outputs, "eager": trained.outputs,
            **compiled(trained, views)}
    times = {}
    for size in BATCHES:
        calls = {way: partial(outputs, views[:size]) for way, outputs in ways.items()}
        for way, seconds in take_turns(calls, flags.rounds, apart=3).items():
            times[way, size] = np.median(seconds)
    print(f"{'':14}" + "".join(f"{f'batch {size}':>24}" for size in BATCHES))
    for way in ways:
        print(f"{way:14}" + "".join(
            f"{1000 * times[way, size]:10.1f} ms {size / times[way, size]:6.0f} img/s"
            for size in BATCHES))

    start = partial(measure, sys.executable, ROOT / "predict.py", photos[0])
    rounds = [{"ONNX Runtime": start("--onnx", onnx), "PyTorch": start("--checkpoint", checkpoint)}
              for _ in range(flags.starts + 1)][1:]  # the first start, from disk, is not counted
    first = {}
    for way in rounds[0]:
        first[way], cpu = (np.median([used[way][key] for used in rounds])
                           for key in ("seconds", "cpu"))
        print(f"a new process predicts one photograph with {way}: {first[way]:.2f} s, {cpu:.2f} s "
              "of CPU time")
    ratios = [(f"onnx_over_{way}_batch_{size}", times[way, size] / times["ONNX Runtime", size],
               "times", ">=", 2.5 if (way, size) == ("eager", 1) else 1)
              for size in BATCHES for way in ways if way != "ONNX Runtime"]
    return state([*ratios, ("onnx_first_prediction", first["ONNX Runtime"], "seconds", "<=", 1.5)])


def write_checkpoint(path, flags):
    """Write a checkpoint of a network of 50 classes with a random head; return its path."""
    torch.manual_seed(0)
    model = build_model(flags.model, 50)
    load_initial_weights(model, flags.model, flags.weights)
    names = [f"Class {label}" for label in range(50)]
    save_checkpoint(path, {"model": flags.model, "class_names": names,
                           "image_size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD,
                           "model_state_dict": model.state_dict()})
    return path


def compiled(predictor, views):
    """Return {"compiled": function from views to outputs}, or {} where torch cannot compile."""
    network = torch.compile(predictor.network)

    @torch.inference_mode()
    def outputs(views):
        return network(torch.from_numpy(views)).numpy()
    try:
        started = time.perf_counter()
        for size in BATCHES:
            outputs(views[:size])
    except Exception as error:  # no compiler, or an unsupported one
        print(f"compiling failed: {type(error).__name__}")
        return {}
    print(f"compiling took {time.perf_counter() - started:.0f} s")
    return {"compiled": outputs}


if __name__ == "__main__":
    sys.exit(main())
