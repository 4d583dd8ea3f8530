"""The binary code of arXiv:2607.04800 as a first layer of the bench of dictionaries: a plugin.

It computes ReLU(x) of every feature, not ANDs, with fewer neurons than features (`toymodels.compressed.codes`).

    toymodels dictionary --plugin analysis/code_layer.py --task relu --layers code --readoff own \\
        --m 40 --d 20 --inputs independent --s 2 --values symmetric
"""

from __future__ import annotations

from torch import nn

from toymodels.compressed.codes import biregular, designed_code, pinv_decoder
from toymodels.core.features import Features
from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import Task

SOURCE = "da Silva & Heimersheim, arXiv:2607.04800"


def is_relu(task: Task) -> bool:
    """Whether the task is ReLU of every feature, without mixing."""
    return task.name == "relu"


def _own(layer: nn.Module, features: Features, seed: int) -> nn.Module:
    return pinv_decoder(layer.weight, features.sampled(20_000, derive_seed(seed, "fit")).dense()).readoff


@LAYERS(
    "code", role="construction", colour="#CC79A7", marker="h", source=SOURCE, own_readoff=_own, fits=is_relu, reads=is_relu,
    own_source=f"c times the pseudo-inverse of the weights ({SOURCE})",
)  # fmt: skip
def code_layer(m: int, d: int, seed: int, features: Features, *, k: int = 5) -> FirstLayer:
    """Make a code of k neurons a feature with small overlaps; the weight of the others is fitted to the inputs."""
    x = features.sampled(20_000, derive_seed(seed, "fit")).dense()
    layer: FirstLayer = designed_code(biregular(m, d, k, seed), x).layer
    return layer
