"""Settings -> what one step of training is made of: forward pass, optimiser, loss, mixing, averaging of weights."""
import math
from importlib.util import find_spec

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.transforms import v2

from dataset import class_weights
from model import parameter_groups
from training.distributed import wrap_model


def build_forward(s, model, device):
    """Return a function from images (B, 3, H, W) to float32 logits (B, K), as fast as the device trains `model`."""
    network, half = wrap_model(model), s.bfloat16 and has_bfloat16(device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
        if s.compile and find_spec("triton"):
            torch._dynamo.config.suppress_errors = True  # what does not compile runs as it is
            network = torch.compile(network)

    def forward(images):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return network(images).float()
    return forward


def has_bfloat16(device):
    """Return whether a device computes in bfloat16 natively; where it is emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return able.get("amx_bf16", False) or able.get("avx512_bf16", False)


def build_optimizer(s, model, new, steps_per_epoch, last):
    """Return (AdamW, learning rate schedule per step: linear warm-up, then cosine decay to zero).

    From `last` come AdamW's moments and the place in the schedule; rates and decay are those of the settings.
    """
    groups = parameter_groups(model, set(new), s.learning_rate, s.backbone_learning_rate, s.weight_decay,
                              s.layer_decay)
    optimizer = torch.optim.AdamW([{**group, "initial_lr": group["lr"]} for group in groups], fused=True)
    if last:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": last["optimizer_state_dict"]["state"]})
    warmup, total = s.warmup_epochs * steps_per_epoch, s.num_epochs * steps_per_epoch

    def factor(step):
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))
    done = last["epoch"] * steps_per_epoch if last else 0
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor, last_epoch=done - 1)


class AdjustedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy of logits (B, K) plus an offset (K,) with labels (B,) or, mixed, (B, K)."""

    def __init__(self, weight, offset, label_smoothing):
        super().__init__(weight, label_smoothing=label_smoothing)
        self.register_buffer("offset", offset)

    def forward(self, logits, labels):
        return super().forward(logits + self.offset, labels)


def build_criterion(s, labels, num_classes, label_smoothing=0.0):
    """Return the cross-entropy loss, weighted by class or adjusted by the classes' frequencies as the settings say.

    Logit adjustment adds the log of the frequencies in training only, so that the network's own logits are those of
    equally frequent classes (Menon et al., "Long-tail Learning via Logit Adjustment", 2021).
    """
    weights = class_weights(labels.to_numpy(), num_classes)
    adjusted = s.balance == "logit_adjustment"
    offset = -weights.log() if adjusted else torch.zeros(num_classes)
    return AdjustedCrossEntropy(weights if s.balance == "weights" else None, offset, label_smoothing)


def build_mix(s, num_classes):
    """Return a function that blends a batch by MixUp or CutMix as set, or None."""
    chosen = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in ((v2.MixUp, s.mixup), (v2.CutMix, s.cutmix))
              if alpha > 0]
    return v2.RandomChoice(chosen) if chosen else None


def build_average(s, model, last):
    """Return the average of the weights over the steps of the last epochs, as far as `last` has come with it."""
    average = AveragedModel(model)
    if last and last.get("average") and last["epoch"] > s.num_epochs - s.average_epochs:
        average.load_state_dict(last["average"])
    return average


def fits_head(s):
    """Return whether the head is fitted before the epochs: not on features of a random network."""
    return s.linear_probe and s.initial_weights != "none"


def freezes_batchnorm(s):
    """Return whether training leaves the statistics of BatchNorm as they are: a random network has none."""
    return s.freeze_backbone or (s.freeze_batchnorm and s.initial_weights != "none")
