"""Running a network over batches, with flip test-time augmentation."""
import torch


def collect_logits(model, batches, flip_tta=False):
    """Return (logits (N, K) float32, labels (N,)) of N photographs, K classes, as numpy arrays.

    `batches` are those of `dataset.batches`. With `flip_tta`, logits are averaged over each image
    and its mirror image. A model without its head returns features (N, D) instead of logits.
    """
    outputs, labels = zip(*((views.mean(0), labels) for views, labels in output_batches(
        model, batches, flip_tta)), strict=True)
    return torch.cat(outputs).numpy(), torch.cat(labels).numpy()


def collect_views(model, batches, flip_tta):
    """Return (outputs (V, N, ...) float32, labels (N,)) of N photographs as numpy arrays.

    V is 1 or, with `flip_tta`, 2: views and mirror images are kept separate.
    """
    outputs, labels = zip(*output_batches(model, batches, flip_tta), strict=True)
    return torch.cat(outputs, 1).numpy(), torch.cat(labels).numpy()


@torch.inference_mode()
def output_batches(model, batches, flip_tta):
    """Yield the outputs (V, B, ...) and labels (B,) of each batch, as in `collect_views`."""
    model.eval()
    for images, labels in batches:  # (B, 3, H, W), (B,)
        views = [images, images.flip(3)] if flip_tta else [images]  # axis 3 is the width
        yield torch.stack([model(view) for view in views]).float().cpu(), labels.cpu()
