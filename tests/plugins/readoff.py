import torch

from toymodels import READOFFS, Fitted, minimax


@READOFFS("shrunk", sampled=True, needs="every input", source="this test")
def shrunk(layer, task, every_input, *, share=1.0):
    """Shrink the minimax readoff towards a constant; its certificate bounds it from below."""
    best = minimax(layer, task, every_input)
    bound = max(certificate.lower_bound for certificate in best.certificates)
    with torch.no_grad():
        best.readoff.weight *= share
    return Fitted(best.readoff, best.tensors(), {"lower_bound": bound, "proved": best.proved and share == 1})
