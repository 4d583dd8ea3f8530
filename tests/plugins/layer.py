import torch

from toymodels import LAYERS, FirstLayer, InputError


def check(density):
    if not 0 < density <= 1:
        raise InputError(f"density = {density:g}: it must be above 0 and at most 1")


@LAYERS("sparse_gaussian", check=check, source="this test")
def sparse_gaussian(m, d, seed, activation, *, density=0.5):
    """Draw Gaussian weights and keep each with probability `density`."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(d, m, generator=generator)
    kept = torch.rand(d, m, generator=generator) < density
    return FirstLayer(weight * kept, torch.zeros(d), activation, "sparse_gaussian")
