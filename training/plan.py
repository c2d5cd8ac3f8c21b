"""What to expect of a run: its memory, estimated from shapes, and settings without effect."""
import math
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image

from model import build_model, default_rates, freeze_backbone, head_name
from training.optimization import keeps_batchnorm
from training.runs import pick_device
from training.teacher import read_teachers

CGROUP = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")  # of this container
STATES = 4  # weights, gradients, and the two moments of AdamW
SAMPLED = 200  # photographs, evenly spaced, whose size is read
# Defaults of settings that may have no effect; not read from config.py, which people edit.
DEFAULTS = {"linear_probe": True, "freeze_backbone": False, "wise_ft": True,
            "freeze_batchnorm": True, "batchnorm_momentum": 0.1, "probe_views": 4,
            "learning_rate": 1e-3, "weight_decay": 0.02, "warmup_epochs": 1.0, "patience": 0,
            "label_smoothing": 0.1, "mixup": 0.0, "cutmix": 0.0, "micro_batch": 0,
            "teacher_temperature": 2.0, "teacher_weight": 0.9}
FINE_TUNING = ("learning_rate", "backbone_learning_rate", "layer_decay", "weight_decay",
               "warmup_epochs", "patience", "label_smoothing", "mixup", "cutmix", "micro_batch",
               "freeze_backbone", "freeze_batchnorm", "batchnorm_momentum", "wise_ft")
OVERHEAD = 0.6  # gigabytes of the libraries and of views that are being loaded


def describe_plan(s, num_classes, steps, batch_size, device):
    """Return lines about the length of a run and its memory, with advice if it may not fit.

    `steps` per epoch and `batch_size` are those of this process.
    """
    fixed, per_photograph = estimate_memory(s, num_classes)
    at_once = min(batch_size, s.micro_batch or batch_size)
    needed, free = fixed + at_once * per_photograph, free_memory(device)
    passes = f" in {math.ceil(batch_size / at_once)} passes" if at_once < batch_size else ""
    lines = [f"epochs: {s.num_epochs}, of {steps:,} steps of {batch_size} photographs{passes}, "
             f"about {needed:.1f} GB of memory" + (f" of {free:.1f} GB free" if free else "")]
    if free and needed > free:
        fits = int((free - fixed) / per_photograph)
        remedy = (f"add --micro_batch {fits}, which takes the same steps in more passes"
                  if fits >= 2 else
                  "lower --image_size or choose a smaller --model")
        lines.append("that may be too much, and the system would kill the process without a "
                     f"message: {remedy}")
    return lines


def describe_enlarging(paths, view):
    """Return a line, if any, about photographs that are smaller than their `View`."""
    sides = []
    for path in paths[::math.ceil(len(paths) / SAMPLED)]:
        with suppress(OSError), Image.open(path) as image:  # reads the header only
            sides.append(min(image.size))  # loading reports those that cannot be read
    small = [side for side in sides if side < view.resized_side]
    if len(small) <= len(sides) / 2:
        return []
    return [f"{len(small)} of {len(sides)} sampled photographs are enlarged, from {min(small)} to "
            f"{max(small)} pixels to {view.resized_side}, which costs time and adds no detail: "
            f"clean the collected ones with --min_side {view.resized_side} --output_side "
            f"{view.resized_side}, or lower --image_size {view.image_size}"]


def describe_idle(s):
    """Return a line, if any, about settings that are not at their default and have no effect."""
    rate, decay = default_rates(s.model)
    default = {**DEFAULTS, "backbone_learning_rate": rate, "layer_decay": decay}
    idle = [f"{name} {getattr(s, name)} ({why})" for name, why in idle_settings(s).items()
            if getattr(s, name) != default[name]]
    return [f"without effect here: {', '.join(idle)}"] if idle else []


def idle_settings(s):
    """Return {setting: why it has no effect in combination with the others}."""
    random, rates = s.initial_weights == "none", ("backbone_learning_rate", "layer_decay")
    idle = {}
    if random:
        idle |= dict.fromkeys((*rates, "linear_probe", "freeze_backbone", "freeze_batchnorm"),
                              "everything starts random, at --learning_rate")
    elif s.freeze_backbone:
        idle |= dict.fromkeys(("layer_decay", "freeze_batchnorm"), "only the head is trained")
        if not s.linear_probe:
            idle["backbone_learning_rate"] = "only the head is trained, at --learning_rate"
    if keeps_batchnorm(s):
        idle["batchnorm_momentum"] = "BatchNorm keeps its statistics"
    if random or not s.linear_probe:
        idle |= dict.fromkeys(("probe_views", "wise_ft"), "there is no linear probe")
    else:
        idle["learning_rate"] = ("the linear probe fits the head; --backbone_learning_rate is the "
                                 "rate of every layer")
    if not s.teacher:
        idle |= dict.fromkeys(("teacher_temperature", "teacher_weight"), "there is no teacher")
    if s.num_epochs == 0:
        idle |= dict.fromkeys(FINE_TUNING, "the linear probe alone is fitted")
    return idle


def count_fitting(s):
    """Return how many photographs fit into the free memory at once, infinity if unknown."""
    fixed, per_photograph = estimate_memory(s, 2)  # a larger head hardly matters
    free = free_memory(pick_device(s.device))
    return int((free - fixed) / per_photograph) if free else math.inf


def estimate_memory(s, num_classes):
    """Return (GB independent of the batch, GB per photograph) of training with these settings.

    Adds up the tensors that a forward pass on the device "meta", which computes nothing, saves for
    the backward pass, and a tenth for temporary gradients. At 224 pixels this estimates 48, 120
    and 223 MB per photograph for MobileNetV3-Large, ConvNeXt-Tiny and DenseNet-201; measured were
    53, 110 and 209.
    """
    with torch.device("meta"):
        model = build_model(s.model, num_classes).eval()  # dropout would draw random numbers
        if s.freeze_backbone:
            freeze_backbone(model, {f"{head_name(model)}.{key}" for key in ("weight", "bias")})
        weights = sum(value.nbytes for value in model.state_dict().values())
        small, large = (count_kept(model, torch.empty(count, 3, s.train_size, s.train_size))
                        for count in (2, 4))
    fixed, each = STATES * weights, 1.1 * (large - small) / 2
    taught = [estimate_teacher(checkpoint) for _, checkpoint in read_teachers(s)]
    fixed += sum(weights for weights, _ in taught)
    each += max((views for _, views in taught), default=0)
    return fixed / 1e9 + OVERHEAD, each / 1e9


def estimate_teacher(checkpoint):
    """Return the bytes of (a teacher's weights, its prediction per photograph).

    The peak of a prediction is the input and output of its widest layer, and half as much for a
    shortcut past it.
    """
    state, widest = checkpoint["model_state_dict"], [0]

    def measure(layer, inputs, output):
        widest.append(inputs[0].nbytes + output.nbytes)
    with torch.device("meta"):
        model = build_model(checkpoint["model"], len(checkpoint["class_names"])).eval()
        for layer in model.modules():
            if not list(layer.children()):
                layer.register_forward_hook(measure)
        side = checkpoint["image_size"]
        with torch.no_grad():
            model(torch.empty(1, 3, side, side))
    return sum(value.nbytes for value in state.values()), 1.5 * max(widest)


def count_kept(model, images):
    """Return the bytes that a forward pass of images (B, 3, H, W) saves for the backward pass."""
    kept = {}

    def remember(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # a reference, so that its address is not reused
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        logits = model(images)
    del logits
    return sum(storage.nbytes() for storage in kept.values())


def free_memory(device):
    """Return the free gigabytes of memory on a device, None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e9
    free = []
    try:
        text = Path("/proc/meminfo").read_text()
        free.append(int(text.split("MemAvailable:")[1].split()[0]) * 1024)
        most, used = (Path(path).read_text().strip() for path in CGROUP)
        free.append(int(most) - int(used))
    except (OSError, ValueError, IndexError):  # not Linux, no container, or "max": no limit
        pass
    return min(free) / 1e9 if free and device.type == "cpu" else None

