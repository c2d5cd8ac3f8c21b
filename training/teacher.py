"""Knowledge distillation: trained networks teach another one on its training views.

Beside the labels, the student learns the teacher's probabilities for the same view, softened by a
temperature (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015). Teacher and
student see the same crop, colours and mixing (Beyer et al., "Knowledge distillation: A good teacher
is patient and consistent", 2022). No two epochs share a view, so predictions cannot be cached.
"""
import torch
from torch import nn
from torch.nn.functional import interpolate, kl_div

from evaluation.trained_model import restore_model
from training.checkpoints import load_checkpoint
from training.optimization import has_bfloat16
from utils import InputError, file_sha256, read_classes, warn

NEEDED = ("run", "model", "class_names", "image_size", "mean", "std")
# Settings that teacher and student should share: what it means if they differ.
SEEN = ("it may have been trained on this run's validation photographs, whose accuracy would then "
        "be too high")
SHARED = {"photographs": SEEN, "split_seed": SEEN, "validation_share": SEEN,
          "balance": "it expects another class mix than this run"}


class Teacher(nn.Module):
    """Networks -> mean of their calibrated logits (B, K) on the student's normalised views.

    `weight` is the teacher's share of the loss, `temperature` softens both sides' probabilities.
    """

    def __init__(self, networks, temperature, weight):
        super().__init__()
        self.networks = nn.ModuleList(networks).eval().requires_grad_(False)
        self.temperature, self.weight, self.half = temperature, weight, False

    @torch.no_grad()
    def forward(self, images):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half):
            return torch.stack([network(images).float() for network in self.networks]).mean(0)

    def blend(self, loss, logits, images):
        """Return (total loss, {name: part}) for the loss of the labels and the logits (B, K)."""
        taught = distillation_loss(logits, self(images), self.temperature)
        parts = {"label_loss": loss, "teacher_loss": taught}
        return (1 - self.weight) * loss + self.weight * taught, parts


def distillation_loss(logits, teacher_logits, temperature):
    """Return the mean Kullback-Leibler divergence, in nats, of softened predictions (B, K).

    Multiplied by the squared temperature, without which the gradient would shrink with it.
    """
    student, teacher = (torch.log_softmax(side / temperature, 1)
                        for side in (logits, teacher_logits))
    return kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature ** 2


class Adapted(nn.Module):
    """A teacher that takes the student's views: with its own normalisation, size and temperature.

    `mean` and `std` are pairs (of the student's views, of the teacher).
    """

    def __init__(self, model, mean, std, image_size, temperature):
        super().__init__()
        self.model, self.image_size, self.temperature = model, image_size, temperature
        (student_mean, own_mean), (student_std, own_std) = (
            [torch.tensor(values).view(3, 1, 1) for values in pair] for pair in (mean, std))
        self.same = bool((student_mean == own_mean).all() and (student_std == own_std).all())
        self.register_buffer("scale", student_std / own_std)
        self.register_buffer("shift", (student_mean - own_mean) / own_std)

    def forward(self, images):
        if not self.same:
            images = torch.addcmul(self.shift, images, self.scale)
        if images.shape[-1] != self.image_size:
            images = interpolate(images, (self.image_size, self.image_size), mode="bilinear",
                                 antialias=True)
        return self.model(images) / self.temperature


# ---- building ----

def read_teachers(s):
    """Return [(path, checkpoint)] of the setting TEACHER; weights stay on disk until used."""
    found = [(path, load_checkpoint(path, mmap=True)) for path in s.teacher]
    for path, checkpoint in found:
        if absent := [key for key in NEEDED if key not in checkpoint]:
            raise InputError(f"--teacher {path} has no {absent[0]}; name a checkpoint that "
                             "train.py has written")
    return found


def build_teacher(s, class_names=None, device=None):
    """Return the `Teacher` of the settings on a device, None if there is none.

    Its classes must be `class_names`, by default those of the class table, in the same order.
    """
    if not s.teacher:
        return None
    if class_names is None:
        class_names = [plant.latin for plant in read_classes(s.class_table, s.limit_classes)]
    networks = []
    for path, checkpoint in read_teachers(s):
        model = restore_model(checkpoint, path, class_names)
        networks.append(Adapted(model, (s.mean, checkpoint["mean"]), (s.std, checkpoint["std"]),
                                checkpoint["image_size"], checkpoint.get("temperature") or 1.0))
    teacher = Teacher(networks, s.teacher_temperature, s.teacher_weight)
    if device is not None:
        teacher.half = s.bfloat16 and has_bfloat16(device)
        teacher.to(device)
    return teacher


def describe_teacher(s):
    """Return the settings that identify a run's teacher, by content and not by path.

    Without a teacher they have no effect and are left out.
    """
    if not s.teacher:
        return {}
    return {"teacher": [f"{checkpoint['run']} {file_sha256(path)[:16]}"
                        for path, checkpoint in read_teachers(s)],
            "teacher_temperature": s.teacher_temperature, "teacher_weight": s.teacher_weight}


def compare_teacher(s, settings):
    """Warn if a teacher was trained on other photographs, or for another class mix, than a run."""
    for path, checkpoint in read_teachers(s):
        before = checkpoint.get("settings") or {}
        for key, meaning in SHARED.items():
            if before.get(key) != settings[key]:
                warn(f"teacher {path}: {key} is {before.get(key)}, here {settings[key]}; {meaning}")
