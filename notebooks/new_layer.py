# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A new first layer, from idea to width curve
#
# **Idea.** A random Gaussian layer has many weights near 0, which say little about a feature. What if every weight were +1 or −1,
# or +2 or −2? How many neurons does such a layer save?
#
# **On Colab**: upload the wheel (`pip wheel --no-deps -w dist .` in a clone of the repository makes it), then run the next
# cell. The torch that is there stays. Where toymodels is installed already, skip that cell.

# %%
# %pip install -q toymodels-*.whl

# %%
import matplotlib.pyplot as plt
import torch

from toymodels import LAYERS, FirstLayer, Network, PairTask, SparseFeatures, evaluate, make_layer, minimax
from toymodels.testing import check_layer
from toymodels.theory.rank import worst_error_floor

# %% [markdown]
# ## Write it
#
# One function with a decorator. What comes after the `*` are knobs.


# %%
@LAYERS("levels", source="this notebook")
def levels(m, d, seed, activation, *, levels=2, bias=0.0):
    """Draw a sign and one of `levels` strengths for every weight."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.randint(1, levels + 1, (d, m), generator=generator).float()
    sign = torch.randint(0, 2, (d, m), generator=generator) * 2.0 - 1
    return FirstLayer(sign * strength, torch.full((d,), bias), activation, "levels")


# %% [markdown]
# ## Check it
#
# The checks that this library's own layers pass: shapes, seeds, data types, storage, gradients. No message is good news.

# %%
check_layer("levels")

# %% [markdown]
# ## Measure it over widths
#
# Each layer gets the best linear readoff that it has, so nothing but the layer is compared. All inputs are used.

# %% tags=["parameters"]
m, s, widths, seeds = 16, 2, (12, 17, 24, 34, 48, 68), (0, 1, 2)
methods = ("gaussian", "levels(levels=1)", "levels(levels=2)", "levels(bias=-1)")

# %%
task, inputs = PairTask(m, "and"), SparseFeatures.at_most(m, s).enumerate()
errors = {}
for method in methods:
    for d in widths:
        for seed in seeds:
            layer = make_layer(method, m=m, d=d, seed=seed, activation="relu").requires_grad_(False)
            network = Network(layer, minimax(layer, task, inputs).readoff)
            errors[method, d, seed] = evaluate(network, task, inputs).worst_error

# %% [markdown]
# ## The width curve
#
# Below the dashed line a layer does what no affine function of the features does. The grey line is the lower bound: no layer of
# that width, of any kind, is below it.

# %%
figure, axis = plt.subplots(figsize=(7, 4))
for method in methods:
    means = [sum(errors[method, d, seed] for seed in seeds) / len(seeds) for d in widths]
    axis.plot(widths, means, "o-", label=method)
axis.plot(widths, [worst_error_floor(task.gate, m, s, d) for d in widths], color="0.6", label="lower bound")
axis.axhline(0.25, color="black", linestyle="--", linewidth=1)
axis.set(xscale="log", xlabel="width d", ylabel="worst error", title=f"U-AND, m = {m}, at most {s} active, minimax")
axis.set_xticks(widths, widths)
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# At these sizes the idea saves nothing: the Gaussian layer is as good, or better. With minimax readoffs and all inputs that is an
# answer, and not bad luck with a training.
#
# ## From here to a paper
#
# Put the function into a file `levels.py`. Then `toymodels check levels.py` checks it, `--plugin levels.py` brings it into every
# command, and a sweep file makes the curve with more seeds, on all cores or a cluster (`docs/howto/own_layer.md`,
# `docs/howto/sweep.md`).
