"""Checkpoint -> trained network, ready to predict."""
import torch
from torch import nn

from model import MODELS, build_model
from utils import InputError


def restore_model(checkpoint, path, class_names):
    """Return the network of a checkpoint, in evaluation mode; `path` is for messages.

    If a checkpoint does not name its network (the published one), the shapes of the weights
    identify it.
    """
    state = checkpoint["model_state_dict"]
    if checkpoint.get("class_names"):
        require_classes(checkpoint["class_names"], list(class_names), path)
    num_classes = len(class_names)
    name = checkpoint.get("model") or identify_model(state, num_classes)
    if name is None:
        raise InputError(f"{path} fits no network of {num_classes} classes in the model table "
                         f"({', '.join(MODELS)}); name its class table with --class_table")
    model = build_model(name, num_classes)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise InputError(f"{path} does not fit {name}: {reason}; name another file") from None
    return model.eval()


def require_classes(trained, table, path):
    """Raise InputError if a checkpoint was trained on other classes than those of the table."""
    if trained == table:
        return
    pairs = zip(trained, table, strict=False)
    differing = [f"{a!r} where the table has {b!r}" for a, b in pairs if a != b]
    differing.append(f"{len(trained)} classes, the table has {len(table)}")
    raise InputError(f"{path} was trained on other classes: {differing[0]}; name its class table "
                     "with --class_table")


def identify_model(state, num_classes):
    """Return the network whose tensors have the names and shapes of `state`, or None."""
    shapes = {key: value.shape for key, value in state.items()}
    for name in MODELS:
        with torch.device("meta"):
            model = build_model(name, num_classes)
        if {key: value.shape for key, value in model.state_dict().items()} == shapes:
            return name
    return None


class PixelModel(nn.Module):
    """A trained network that normalises pixels itself: uint8 (B, H, W, 3) -> float32 (B, K + 1).

    The last column is the score of `out_of_distribution.ScoredHead`. `mean` and `std` are per
    channel, of pixels in [0, 1].
    """

    def __init__(self, model, mean, std):
        super().__init__()
        self.model = model
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1))

    def forward(self, views):
        return self.model(self.normalize(views)).float()

    def normalize(self, views):
        """Return the network's input (B, 3, H, W), channels last in memory like the views."""
        images = (views.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return images.to(next(self.model.parameters()).dtype)
