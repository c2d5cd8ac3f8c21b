"""Answering on the CPU: ONNX Runtime against PyTorch, eager and compiled, and a new process that names one photograph.

    python benchmarks/inference.py --photos DIR --weights FILE
    figure onnx_over_eager_batch_1 3.1 times target >= 2.5 met

A network of 50 classes is exported by export.py, checked on the photographs in DIR, and asked the same views in turn,
round by round; figures are ratios of median times. All cores that the process may use are used (`taskset -c 0` gives
one). Without --weights the network is random: the speed is the same. Compiling needs a C++ compiler; without one its
figures are left out.
"""
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
import export
from benchmarks.common import ROOT, parse, state
from model import build_model, load_initial_weights
from predict import find_photos, load_onnx, load_trained, read_view
from runs import save_checkpoint

BATCHES = (1, 32)


def main(argv=None):
    flags = parse(__doc__, argv, model="mobilenet_v3_large", rounds=30, starts=7)
    checkpoint = write_checkpoint(flags.work / "inference/plants_model.pth.tar", flags)
    photos = list(find_photos([str(flags.photos)]))[:BATCHES[-1]]
    export.main(["--checkpoint", str(checkpoint), "--check_photos", str(flags.photos)])
    onnx = checkpoint.with_suffix("").with_suffix(".onnx")

    s = config.namespace(checkpoint=str(checkpoint), device="cpu")
    trained = load_trained(s)
    views = np.stack([read_view(path, trained.image_size, s) for path in photos])
    ways = {"ONNX Runtime": load_onnx(onnx).logits, "eager": trained.logits, **compiled(trained, views)}
    times = {(way, size): value for size in BATCHES for way, value in measure_calls(ways, views[:size], flags).items()}
    print(f"{'':14}" + "".join(f"{f'batch {size}':>24}" for size in BATCHES))
    for way in ways:
        print(f"{way:14}" + "".join(f"{1000 * times[way, size]:10.1f} ms {size / times[way, size]:6.0f} img/s"
                                    for size in BATCHES))

    starts = {"ONNX Runtime": ["--onnx", onnx], "PyTorch": ["--checkpoint", checkpoint]}
    seconds = measure_starts(starts, photos[0], flags.starts)
    for way, (wall, cpu) in seconds.items():
        print(f"a new process names one photograph with {way}: {wall:.2f} s, {cpu:.2f} s of CPU time")
    ratios = [(f"onnx_over_{way}_batch_{size}", times[way, size] / times["ONNX Runtime", size], "times", ">=",
               2.5 if (way, size) == ("eager", 1) else 1) for size in BATCHES for way in ways if way != "ONNX Runtime"]
    return state([*ratios, ("onnx_first_answer", seconds["ONNX Runtime"][0], "seconds", "<=", 1.5)])


def write_checkpoint(path, flags):
    """Write a checkpoint of a network of 50 classes, its head random, and return its path."""
    torch.manual_seed(0)
    model = build_model(flags.model, 50)
    load_initial_weights(model, flags.model, flags.weights)
    save_checkpoint(path, {"model": flags.model, "class_names": [f"Class {label}" for label in range(50)],
                           "image_size": 224, "mean": config.MEAN, "std": config.STD,
                           "model_state_dict": model.state_dict()})
    return path


def compiled(predictor, views):
    """Return {"compiled": function} from views to logits, for each size of batch, or {} where torch cannot compile."""
    network = torch.compile(predictor.network)

    @torch.inference_mode()
    def logits(views):
        return network(torch.from_numpy(views)).numpy()
    try:
        began = time.perf_counter()
        for size in BATCHES:
            logits(views[:size])
    except Exception as error:  # no compiler, or one it does not know
        print(f"compiling failed: {type(error).__name__}")
        return {}
    print(f"compiling took {time.perf_counter() - began:.0f} s")
    return {"compiled": logits}


def measure_calls(ways, views, flags):
    """Return {way: median seconds of a call}, the ways taken in turn."""
    seconds = {way: [] for way in ways}
    for turn in range(flags.rounds + 3):
        for way, logits in ways.items():
            began = time.perf_counter()
            logits(views)
            if turn >= 3:
                seconds[way].append(time.perf_counter() - began)
    return {way: statistics.median(values) for way, values in seconds.items()}


def measure_starts(ways, photo, count):
    """Return {way: median (wall, CPU) seconds of predict.py in a new process}, the first run of each not counted."""
    seconds = {way: [] for way in ways}
    for _ in range(count + 1):
        for way, arguments in ways.items():
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([sys.executable, str(ROOT / "predict.py"), photo, *map(str, arguments)], check=True,
                           capture_output=True)
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[way].append((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return {way: tuple(map(statistics.median, zip(*values[1:], strict=True))) for way, values in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
