"""A small plain network to be moved into model.py.

Settings that teach it the drawn flora: --image_size 80 --batch_size 16 --num_epochs 80 --learning_rate 2e-3
--weight_decay 0.05 --crop_scale_min 0.5 (the rest as in config.py).
"""
from torch import nn


def plain_cnn(num_classes):
    """Return a small network that learns from scratch in minutes; any image size from 32 pixels."""
    layers = [nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    for before, width in ((24, 64), (64, 128), (128, 256)):
        layers += [nn.MaxPool2d(2), nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, num_classes))
