"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) with the tensor names that torchvision gives its features."""

from __future__ import annotations

from torch import Tensor, nn

# expansion, channels, repeats, stride of the first repeat
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS, FEATURES = 32, 1280


def conv_norm_activation(
    channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU6."""
    padding = (kernel - 1) // 2
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection; a skip where shapes allow it."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [conv_norm_activation(channels_in, wide)]
        layers += [
            conv_norm_activation(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_skip = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W') of (B, C, H, W)."""
        out: Tensor = self.conv(x)
        return x + out if self.has_skip else out


def mobilenet_features(channels_in: int) -> nn.Sequential:
    """Return the layers from images (B, C, H, W) to feature maps (B, 1280, H / 32, W / 32)."""
    layers: list[nn.Module] = [conv_norm_activation(channels_in, STEM_CHANNELS, 3, 2)]
    channels = STEM_CHANNELS
    for expansion, width, repeats, stride in STAGES:
        for repeat in range(repeats):
            layers.append(InvertedResidual(channels, width, stride if repeat == 0 else 1, expansion))
            channels = width
    layers.append(conv_norm_activation(channels, FEATURES))
    features = nn.Sequential(*layers)
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return features
