"""What do the seven networks cost? Parameters, multiply-adds, size, speed and memory.

    python benchmarks/models.py                 # on CUDA where there is one, or --device cpu
    figure parameters_of_convnext_tiny_over_mobilenet_v3_large 6.52 times target >= 5.2 met

Prints the table of which docs/training.md shows a part. Each network, with 50 classes, runs in
processes of its own, one after the other: training steps as train.py makes them, and predictions,
on one random batch at 224 pixels; times are medians of the rounds. Multiply-adds are those of one
photograph, counted by torch.utils.flop_counter. The checkpoint is what prediction needs. Memory is
the peak of the process beyond what it used before the network was built or, on CUDA, the peak
allocated there.
"""
import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import state
from dataset import normalize
from model import TORCHVISION, build_model, complete, set_train_mode
from training.checkpoints import save_checkpoint
from training.optimization import build_forward, build_optimizer
from training.runs import pick_device

CLASSES = 50
PARTS = ("counting", "training", "predicting")  # each measured in its own process
COLUMNS = {"parameters": ("parameters, million", "{:.2f}"),
           "multiply_adds": ("multiply-adds, million", "{:,.0f}"),
           "size": ("checkpoint, MB", "{:.1f}"),
           "training": ("training, photographs/s", "{:,.1f}"),
           "predicting": ("predicting, photographs/s", "{:,.1f}"),
           "training_memory": ("memory in training, MB", "{:,.0f}"),
           "predicting_memory": ("memory in predicting, MB", "{:,.0f}")}


def main(argv=None):
    flags = parse_flags(argv)
    if flags.only:
        print(json.dumps(measure(*flags.only.split(":"), flags)))
        return 0
    rows = {}
    for name in TORCHVISION:
        rows[name] = {}
        for part in PARTS:
            command = [sys.executable, __file__, *(argv or sys.argv[1:])]
            done = subprocess.run([*command, "--only", f"{name}:{part}"], stdout=subprocess.PIPE,
                                  text=True, check=True)
            rows[name] |= json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {json.dumps(rows[name])}", flush=True)
    print("\n| network | " + " | ".join(title for title, _ in COLUMNS.values()) + " |\n|---"
          + "|---:" * len(COLUMNS) + "|")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["parameters"]):
        cells = [form.format(row[key]) for key, (_, form) in COLUMNS.items()]
        print(f"| `{name}` | {' | '.join(cells)} |")
    device = pick_device(flags.device)
    cuda = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} threads"
    print(f"\nbatch {flags.batch_size}, {flags.rounds} rounds, {where}")
    ratio = rows["convnext_tiny"]["parameters"] / rows["mobilenet_v3_large"]["parameters"]
    figure = "parameters_of_convnext_tiny_over_mobilenet_v3_large"
    return state([(figure, ratio, "times", ">=", 5.2)])


def parse_flags(argv):
    """Return the flags; `--only NAME:PART` measures one part of one network in this process."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8, help="[8]")
    parser.add_argument("--rounds", type=int, default=5, help="[5]")
    parser.add_argument("--device", default="", help="torch device, CUDA where there is one")
    parser.add_argument("--work", type=Path, default=config.ROOT / "data/benchmarks",
                        help="folder for checkpoints")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure(name, part, flags):
    """Return the numbers of one of the PARTS of a network."""
    device, before = pick_device(flags.device), peak_memory()
    torch.manual_seed(0)
    model = build_model(name, CLASSES).to(device)
    if part == "counting":
        return count(model, name, flags.work, device)
    shape = (flags.batch_size, 3, 224, 224)
    images = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    labels = torch.randint(0, CLASSES, (flags.batch_size,)).to(device)
    build = training_step if part == "training" else predicting_step
    s = complete(config.namespace(model=name, freeze_batchnorm=False))
    step = build(model, images, labels, s)
    seconds = [timed(step) for _ in range(flags.rounds + 2)][2:]
    memory = (torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda"
              else peak_memory() - before)
    return {part: flags.batch_size / statistics.median(seconds), f"{part}_memory": memory}


def training_step(model, images, labels, s):
    """Return a function that trains one step as train.py does."""
    optimizer, scheduler = build_optimizer(s, model, [], 100, None)
    forward, criterion = build_forward(s, model, images.device), torch.nn.CrossEntropyLoss()
    set_train_mode(model, False, s.freeze_batchnorm)

    def step():
        loss = criterion(forward(normalize(images, s.mean, s.std)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss.item()
    return step


def predicting_step(model, images, labels, s):
    """Return a function that predicts one batch."""
    model.eval()

    @torch.inference_mode()
    def step():
        return model(normalize(images, s.mean, s.std)).sum().item()
    return step


def peak_memory():
    """Return the most memory this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def timed(step):
    """Return the seconds of a step that ends by reading a number, which waits for the device."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def count(model, name, work, device):
    """Return parameters and multiply-adds in millions and the megabytes of a checkpoint."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, 224, 224, device=device))
    file = work / f"models/{name}.pth.tar"
    save_checkpoint(file, {"model": name, "model_state_dict": model.state_dict()})
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()) / 1e6,
            "multiply_adds": counter.get_total_flops() / 2e6, "size": file.stat().st_size / 1e6}


if __name__ == "__main__":
    sys.exit(main())
