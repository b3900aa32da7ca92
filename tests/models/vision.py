"""Convolutional nets in plain torch, in the shape of well-known ones."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import nn
from torch.nn import functional

Built = tuple[nn.Module, dict[str, torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Shape:
    """`width` is the number of channels of the first layers, `side` the picture's side in pixels."""

    width: int
    side: int
    batch: int


SHAPES = {"tiny": Shape(8, 32, 1), "test": Shape(16, 64, 2), "bench": Shape(64, 128, 1)}


def _pictures(shape: Shape) -> torch.Tensor:
    return torch.randn(shape.batch, 3, shape.side, shape.side)


def _settle(module: nn.Module) -> nn.Module:
    """Gives batch norms statistics and weights other than 0 and 1, as training would, and eval mode."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.6, 1.4)
    return module.eval()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return functional.relu(y, inplace=True)


class ResNet18(nn.Module):
    """The 18-layer residual net (He and others, 2015)."""

    def __init__(self, width: int, classes: int = 100) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks: list[nn.Module] = []
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        for position, (before, after) in enumerate(itertools.pairwise(widths)):
            blocks += [BasicBlock(before, after, 1 if position == 0 else 2), BasicBlock(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(functional.relu(self.bn(self.conv(x))))
        x = functional.adaptive_avg_pool2d(self.blocks(x), 1)
        result: torch.Tensor = self.head(torch.flatten(x, 1))
        return result


def resnet18(size: str) -> Built:
    """ResNet-18."""
    shape = SHAPES[size]
    return _settle(ResNet18(shape.width)), {"x": _pictures(shape)}


class SqueezeExcite(nn.Module):
    """Weights channels by what is in the whole picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, max(width // 4, 4), 1)
        self.up = nn.Conv2d(max(width // 4, 4), width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = functional.adaptive_avg_pool2d(x, 1)
        return x * functional.hardsigmoid(self.up(functional.relu(self.down(scale))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze and excite, 1x1 projection."""

    def __init__(self, width_in: int, inner: int, width: int, kernel: int, stride: int, hard: bool) -> None:
        super().__init__()
        act = nn.Hardswish if hard else nn.ReLU
        self.body = nn.Sequential(
            nn.Conv2d(width_in, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            act(),
            nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            act(),
            SqueezeExcite(inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.residual = stride == 1 and width_in == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """In the shape of MobileNetV3 (Howard and others, 2019)."""

    def __init__(self, width: int, classes: int = 100) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(nn.Conv2d(3, w, 3, 2, 1, bias=False), nn.BatchNorm2d(w), nn.Hardswish())
        self.blocks = nn.Sequential(
            InvertedResidual(w, w, w, 3, 1, hard=False),
            InvertedResidual(w, 4 * w, 3 * w // 2, 3, 2, hard=False),
            InvertedResidual(3 * w // 2, 6 * w, 3 * w // 2, 5, 1, hard=True),
            InvertedResidual(3 * w // 2, 6 * w, 3 * w, 5, 2, hard=True),
            InvertedResidual(3 * w, 9 * w, 3 * w, 5, 1, hard=True),
        )
        self.head = nn.Sequential(
            nn.Conv2d(3 * w, 9 * w, 1, bias=False),
            nn.BatchNorm2d(9 * w),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
            nn.Linear(9 * w, 8 * w),
            nn.Hardswish(),
            nn.Linear(8 * w, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.blocks(self.stem(x)))
        return result


def mobilenet(size: str) -> Built:
    """MobileNetV3-like."""
    shape = SHAPES[size]
    return _settle(MobileNet({"tiny": 8, "test": 16, "bench": 24}[size])), {"x": _pictures(shape)}


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with batch norm."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(width_in, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )


class NormConv(nn.Module):
    """Group norm, SiLU and a 3x3 convolution around a shortcut, as in diffusion models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(functional.silu(self.norm(x)))


class UNet(nn.Module):
    """Down twice by pooling, up once by a transposed convolution and once by interpolation, with skips."""

    def __init__(self, width: int, classes: int = 5) -> None:
        super().__init__()
        self.down1 = DoubleConv(3, width)
        self.down2 = DoubleConv(width, 2 * width)
        self.middle = nn.Sequential(DoubleConv(2 * width, 4 * width), NormConv(4 * width))
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.join2 = DoubleConv(4 * width, 2 * width)
        self.up1 = nn.Conv2d(2 * width, width, 1)
        self.join1 = DoubleConv(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        y = self.middle(functional.max_pool2d(two, 2))
        y = self.join2(torch.cat([two, self.up2(y)], dim=1))
        y = functional.interpolate(self.up1(y), scale_factor=2.0, mode="bilinear", align_corners=False)
        y = self.join1(torch.cat([one, y], dim=1))
        return torch.softmax(self.head(y), dim=1)


def unet(size: str) -> Built:
    """U-Net-like segmentation."""
    shape = SHAPES[size]
    return _settle(UNet({"tiny": 8, "test": 16, "bench": 24}[size])), {"x": _pictures(shape)}


class ConvNetLoss(nn.Module):
    """A small classifier with batch norm in training mode and its cross entropy."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.GELU(),
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        y = self.head(self.features(x).mean((2, 3)))
        return functional.cross_entropy(y, labels)


def convnet_loss(size: str) -> Built:
    """A small conv net's loss; batch norm updates its statistics."""
    shape = SHAPES[size]
    x = torch.randn(8, 3, shape.side // 2, shape.side // 2)
    return ConvNetLoss(shape.width // 2), {"x": x, "labels": torch.randint(0, 10, (8,))}
