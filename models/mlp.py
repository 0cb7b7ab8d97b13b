"""Multi-layer perceptron."""

import itertools
import math
from collections.abc import Sequence

from tinytrain import nn


class MLP(nn.Sequential):
    """Dense layers with ReLU between them; 784-128-10 by default. Any input shape is flattened."""

    loss = "cross_entropy"

    def __init__(
        self,
        classes: int = 10,
        input_shape: tuple[int, ...] = (28, 28, 1),
        hidden: Sequence[int] = (128,),
    ):
        sizes = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        super().__init__(*layers, nn.Linear(sizes[-1], classes))
