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
# # Was it there at random initialisation?
#
# Train a network on U-AND: the AND of every pair of features, in a hidden layer with far fewer neurons than outputs. Then
# draw the first layer again at random, freeze it, and fit only what reads it. Are the errors as small as before?
#
# **On Colab**: upload the wheel (`pip wheel --no-deps -w dist .` in a clone of the repository makes it), then run the next
# cell. The torch that is there stays. Where toymodels is installed already, skip that cell.

# %%
# %pip install -q toymodels-*.whl

# %%
import matplotlib.pyplot as plt
import torch

from toymodels import (
    LinearReadoff,
    Network,
    PairTask,
    SparseFeatures,
    Trainer,
    TrainingSettings,
    balanced,
    evaluate,
    gaussian,
    least_squares,
    minimax,
    train,
)

# %% [markdown]
# ## The problem
#
# m features, at most s of them active at once, d neurons. These sizes take about a minute on a laptop; the
# experiment of the README has m = 50 and d = 100.

# %% tags=["parameters"]
m, d, s, steps = 24, 48, 2, 750

# %%
features, task = SparseFeatures.at_most(m, s), PairTask(m, "and")
inputs = features.enumerate()
print(f"{len(inputs)} inputs, {task.n_outputs} outputs, {d} neurons")

# %% [markdown]
# ## Train a network
#
# The loss is L_p, with exponents that rise from 2 to 32: small exponents find a start, large ones look at the largest errors.

# %%
start = Network(gaussian(m, d, seed=0), LinearReadoff.constant(task.n_outputs, d))
trainer = Trainer(start, task, features, TrainingSettings(steps=steps), seed=0)
train(trainer)
trained = trainer.network.layer.requires_grad_(False)

# %% [markdown]
# ## Freeze a random layer, and fit readoffs to both
#
# The same layer is good or bad by its readoff. The minimax readoff is the best there is for the
# worst error, and comes with a proof.

# %%
frozen = gaussian(m, d, seed=1).requires_grad_(False)
worst, networks = {}, {}
for name, layer in (("frozen", frozen), ("trained", trained)):
    for method, readoff in (
        ("least squares", least_squares(layer, task, inputs)),
        ("balanced", balanced(layer, task, features, inputs)),
        ("minimax", minimax(layer, task, inputs).readoff),
    ):
        networks[name, method] = Network(layer, readoff)
        worst[name, method] = evaluate(networks[name, method], task, inputs).worst_error
        print(f"{name:8} {method:14} worst error {worst[name, method]:.3f}")
print(f"frozen over trained, by minimax readoffs: {worst['frozen', 'minimax'] / worst['trained', 'minimax']:.2f}")

# %% [markdown]
# ## Look at the outputs
#
# Outputs whose target is 0 and outputs whose target is 1. Where the two heaps do not overlap, a threshold tells them apart.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
x = inputs.dense()
for axis, name in zip(axes, ("frozen", "trained"), strict=True):
    with torch.no_grad():
        outputs, targets = networks[name, "minimax"](x), task.targets(x)
    for target, colour in ((0, "tab:blue"), (1, "tab:orange")):
        chosen = outputs[targets == target]
        axis.hist(chosen, bins=60, density=True, log=True, alpha=0.6, color=colour, label=f"target {target}")
    axis.set(title=f"{name} layer", xlabel="output")
axes[0].set_ylabel("probability density")
axes[0].legend()
plt.show()

# %% [markdown]
# ## Where next
#
# `toymodels compare --m 24 --d 48 --task and` does all of this with a record on disk, `docs/results/genericity.md` has the
# numbers over m and d.
