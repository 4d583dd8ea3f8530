import torch

from toymodels import VALUES


@VALUES("triangular", description="triangular on [0, 1]", source="this test")
def triangular(shape, generator):
    """Draw the mean of two uniform values."""
    return (torch.rand(shape, generator=generator) + torch.rand(shape, generator=generator)) / 2
