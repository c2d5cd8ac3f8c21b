"""Means over the photographs of an epoch, summed on the device, which is not waited for."""
import torch

from training.distributed import mean_over_ranks


class Tally:
    """Sums of named numbers, each the mean over a batch, weighted by its photographs."""

    def __init__(self):
        self.sums, self.count = {}, 0

    def add(self, count, **values):
        """Count a batch of `count` photographs with its values, tensors ()."""
        self.count += count
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach() * count

    def means(self):
        """Return {name: mean} over the photographs of all ranks, which are equally many on each."""
        return {name: mean_over_ranks(torch.tensor(total.item() / self.count, dtype=torch.float64))
                .item() for name, total in self.sums.items()}
