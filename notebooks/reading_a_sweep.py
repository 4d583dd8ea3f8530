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
# # Reading a sweep
#
# A sweep leaves one tidy table: a row for each task, seed, first layer and readoff of each run, with all settings as columns.
# This notebook does a small sweep and asks the table three questions. With a sweep of your own, put its folder into `folder`
# and leave out the cell that runs it.
#
# **On Colab**: upload the wheel (`pip wheel --no-deps -w dist .` in a clone of the repository makes it), then run the next
# cell. The torch that is there stays. Where toymodels is installed already, skip that cell.

# %%
# %pip install -q toymodels-*.whl

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from toymodels.runs.table import read_table
from toymodels.sweeps.runner import SweepConfig, run_sweep

# %% tags=["parameters"]
m, widths, seeds, steps = 12, [8, 16, 32, 64], [0, 1, 2], 300
folder = Path(tempfile.mkdtemp()) / "sweep"

# %% [markdown]
# ## Run it
#
# A sweep file is YAML, as `wandb sweep` takes it. The same call again does only what is missing.

# %%
file = folder.with_suffix(".yaml")
file.write_text(f"""
method: grid
command: ["${{env}}", "toymodels", "run", "compare", "${{args_json_file}}"]
parameters:
  d: {{values: {widths}}}
  m: {{value: {m}}}
  task: {{value: [and]}}
  steps: {{value: {steps}}}
  seeds: {{value: {seeds}}}
""")
run_sweep(SweepConfig(file=file, out=folder))

# %% [markdown]
# ## Read it
#
# A list of dictionaries; `read_frame` of the same module gives a pandas DataFrame.

# %%
rows = read_table(folder)
print(len(rows), "rows;", "columns:", ", ".join(rows[0]))

# %% [markdown]
# ## Question 1: what was measured?
#
# Look before you compare: all inputs, or a sample? All outputs?

# %%
for covered in sorted({(row["d"], row["covered"], row["n_pairs"]) for row in rows}):
    print("d = {}: inputs {}, {} outputs".format(*covered))

# %% [markdown]
# ## Question 2: how does the worst error fall with the width?
#
# Take the mean over seeds only. Every other column that varies is a line, or a panel.

# %%
lines = {}
for row in rows:
    lines.setdefault((row["first_layer"], row["readoff"]), {}).setdefault(row["d"], []).append(row["worst_error"])
figure, axis = plt.subplots(figsize=(7, 4))
for name in (("gaussian", "balanced"), ("gaussian", "minimax"), ("trained", "minimax")):
    points = sorted(lines[name].items())
    axis.plot([d for d, _ in points], [sum(e) / len(e) for _, e in points], "o-", label=" / ".join(name))
axis.axhline(0.25, color="black", linestyle="--", linewidth=1)
axis.set(xscale="log", xlabel="width d", ylabel="worst error")
axis.set_xticks(widths, widths)
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# ## Question 3: frozen over trained, seed by seed
#
# A ratio of two means hides that the seeds of a row belong together. Divide first, then look at the spread.

# %%
by_key = {(row["first_layer"], row["readoff"], row["d"], row["seed"]): row["worst_error"] for row in rows}
for d in widths:
    pairs = [(by_key["gaussian", "minimax", d, seed], by_key["trained", "minimax", d, seed]) for seed in seeds]
    ratios = [f"{frozen / trained:.2f}" if trained > 1e-6 else "fits all" for frozen, trained in pairs]
    print(f"d = {d}:", ", ".join(ratios))

# %% [markdown]
# The same from the command line: `toymodels results FOLDER --out table.csv`, `toymodels report FOLDER`.
