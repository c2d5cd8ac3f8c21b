"""Running a network over batches, with flip test-time augmentation."""
import torch


@torch.inference_mode()
def collect_logits(model, batches, flip_tta=False):
    """Return (logits (N, K) float32, labels (N,)) of N photographs, K classes, as numpy arrays.

    `batches` are those of `dataset.batches`. With `flip_tta`, the logits are the mean over each
    image and its mirror image. A model without its head returns features (N, D) instead of logits.
    The model is left in evaluation mode.
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
