"""Settings -> the parts of a training step: forward pass, optimizer, schedule, loss."""
import math
from functools import partial
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torchvision.transforms import v2

from dataset import class_weights
from model import parameter_groups
from training.distributed import world_size
from training.weight_files import is_plain
from utils import InputError, read_table

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # what AdamW stores for a parameter

# ---- forward pass ----

def build_forward(s, model, device):
    """Return the forward pass of training, images (B, 3, H, W) -> float32 logits (B, K).

    Among several ranks it first copies weights and buffers from rank 0, then averages gradients.
    """
    network = DistributedDataParallel(model) if world_size() > 1 else model
    half = s.bfloat16 and trains_in_bfloat16(model, device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
        if s.compile and find_spec("triton"):
            torch._dynamo.config.suppress_errors = True  # run eagerly what does not compile
            network = torch.compile(network)

    def forward(images):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return network(images).float()
    return forward


def has_bfloat16(device):
    """Return whether a device computes bfloat16 natively; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return features.get("amx_bf16", False) or features.get("avx512_bf16", False)


def trains_in_bfloat16(model, device):
    """Return whether a network trains faster in bfloat16 on a device.

    On CPUs with native bfloat16, the gradients of depthwise convolutions take twice as long as in
    float32 (measured with MobileNetV3); networks without such convolutions take half as long.
    """
    depthwise = any(isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels
                    for module in model.modules())
    return has_bfloat16(device) and not (device.type == "cpu" and depthwise)


# ---- optimizer and schedule ----

def build_optimizer(s, model, new, steps_per_epoch, last):
    """Return (AdamW, schedule per step); `new` names the parameters that start random.

    A resumed run takes AdamW's moments and the step of the schedule from the checkpoint `last`,
    but learning rates and weight decay from the settings. Raises InputError as `load_moments` does.
    """
    groups = parameter_groups(model, set(new), s.learning_rate, s.backbone_learning_rate,
                              s.weight_decay, s.layer_decay)
    optimizer = torch.optim.AdamW([{**group, "initial_lr": group["lr"]} for group in groups],
                                  fused=True)
    if last:
        load_moments(optimizer, model, last["optimizer_state_dict"])
    warmup, total = s.warmup_epochs * steps_per_epoch, s.num_epochs * steps_per_epoch
    steps_done = last["epoch"] * steps_per_epoch if last else 0
    schedule = partial(learning_rate_factor, warmup=warmup, total=total)
    return optimizer, LambdaLR(optimizer, schedule, last_epoch=steps_done - 1)


def optimizer_state(optimizer, model):
    """Return the checkpoint field `optimizer_state_dict`: {"state": {parameter name: tensors}}.

    By name, because learning rates and their decay decide in which order AdamW has parameters.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {"state": {names[parameter]: dict(moments)
                      for parameter, moments in optimizer.state.items()}}


def load_moments(optimizer, model, stored):
    """Load AdamW's moments and step counts from the checkpoint field `optimizer_state_dict`.

    Raises InputError if they do not fit the parameters of these names.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = stored.get("state", {})
    shapes = {names[parameter]: parameter.shape for parameter in order}
    for name, moments in state.items():
        fits = name in shapes and moments.keys() == MOMENTS and all(
            is_plain(value) and value.shape == (() if key == "step" else shapes[name])
            for key, value in moments.items())
        if not fits:
            raise InputError(f"the last checkpoint of the run: the optimizer's state of {name} "
                             "does not fit the network; name another run with --run")
    positions = {index: state[names[parameter]] for index, parameter in enumerate(order)
                 if names[parameter] in state}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": positions})


def learning_rate_factor(step, warmup, total):
    """Return the factor of the peak learning rate at a step: linear warm-up, cosine decay to 0.

    The cosine is that of Loshchilov and Hutter, "SGDR", 2017, without restarts.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))


# ---- loss and mixing ----

class AdjustedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy of logits (B, K) plus an offset (K,) with labels (B,) or, mixed, (B, K)."""

    def __init__(self, weight, offset, label_smoothing):
        super().__init__(weight, label_smoothing=label_smoothing)
        self.register_buffer("offset", offset)

    def forward(self, logits, labels):
        return super().forward(logits + self.offset, labels)


def build_criterion(balance, labels, num_classes, label_smoothing=0.0):
    """Return the cross-entropy loss for training labels (N,) and `balance` from `read_balance`.

    "weights" weights the loss by class. "logit_adjustment" adds the log class frequencies to the
    logits in training only, so that the plain logits fit equally frequent classes; with shares (K,)
    of an expected class mix, they fit that mix (Menon et al., "Long-tail Learning via Logit
    Adjustment", 2021).
    """
    weights = class_weights(labels.to_numpy(), num_classes)
    offset = torch.zeros(num_classes)
    if not isinstance(balance, str):
        offset = -weights.log() - (num_classes * balance).log()
    elif balance == "logit_adjustment":
        offset = -weights.log()
    weighted = isinstance(balance, str) and balance == "weights"
    return AdjustedCrossEntropy(weights if weighted else None, offset, label_smoothing)


def read_balance(balance, class_names):
    """Return BALANCE or, if it names a table latin,share, the class shares (K,), summing to 1."""
    if not balance.endswith(".csv"):
        return balance
    shares = {}
    for line, row in enumerate(read_table(balance, ("latin", "share")), 2):
        name = row["latin"].strip()
        if name in shares:
            raise InputError(f"{balance}, line {line}: {name} is listed twice; delete one of the "
                             "rows")
        try:
            shares[name] = float(row["share"])
        except ValueError:
            raise InputError(f"{balance}, line {line}: the share {row['share']!r} is not a "
                             "number") from None
    wrong = [name for name in class_names if not 0 < shares.get(name, 0) < math.inf]
    if wrong:
        raise InputError(f"{balance} has no share above 0 for {', '.join(wrong[:5])}; give every "
                         "class how often it is expected, such as its number of photographs in use")
    mix = torch.tensor([shares[name] for name in class_names], dtype=torch.float64)
    return (mix / mix.sum()).float()


def build_mix(s, num_classes):
    """Return a function that mixes a batch by MixUp or CutMix, or None if both are off."""
    kinds = [kind(alpha=alpha, num_classes=num_classes)
             for kind, alpha in ((v2.MixUp, s.mixup), (v2.CutMix, s.cutmix)) if alpha > 0]
    return v2.RandomChoice(kinds) if kinds else None


# ---- weights ----

def keeps_batchnorm(s):
    """Return whether training keeps the BatchNorm statistics of the initial weights."""
    return s.freeze_backbone or (s.freeze_batchnorm and s.initial_weights != "none")
