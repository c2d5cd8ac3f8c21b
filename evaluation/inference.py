"""Running a network over batches, with flip test-time augmentation."""
import torch


@torch.inference_mode()
def collect_logits(model, batches, flip_tta=False):
    """Return (logits (N, K) float32, labels (N,)) of N photographs, K classes, as numpy arrays.

    `batches` are those of `dataset.batches`. With `flip_tta`, logits are averaged over each image
    and its mirror image. A model without its head returns features (N, D) instead of logits. The
    model is left in evaluation mode.
    """
    model.eval()
    logits, labels = [], []
    for images, batch_labels in batches:  # (B, 3, H, W), (B,)
        output = model(images)  # (B, K)
        if flip_tta:
            output = (output + model(images.flip(3))) / 2  # axis 3 is the width
        logits.append(output.float().cpu())
        labels.append(batch_labels.cpu())
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


@torch.inference_mode()
def collect_views(model, batches, flip_tta=False):
    """Return (outputs (V, N, ...) float32, labels (N,)) of N photographs as numpy arrays.

    V is 1 or, with `flip_tta`, 2: views and mirror images are kept separate.
    """
    model.eval()
    outputs, labels = [], []
    for images, batch_labels in batches:
        views = [model(images), model(images.flip(3))] if flip_tta else [model(images)]
        outputs.append(torch.stack(views).float().cpu())
        labels.append(batch_labels.cpu())
    return torch.cat(outputs, 1).numpy(), torch.cat(labels).numpy()
