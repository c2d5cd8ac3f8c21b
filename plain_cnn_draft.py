"""A small plain network to be moved into model.py."""
from torch import nn


def plain_cnn(num_classes):
    """Return a small convolutional network for training from scratch: (B, 3, H, W), any size from 32 up, to (B, K).

    Convolution, batch normalisation and ReLU as in VGG (https://arxiv.org/abs/1409.1556), then global average pooling.
    """
    layers, channels = [], 3
    for width in (32, 64, 128, 256):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                   nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(.2), nn.Linear(channels, num_classes))
