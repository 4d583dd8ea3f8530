"""Write a diagnosis as one page: the verdict with its reasons, the pictures that people use, and every measure."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import torch

from toymodels.diagnosis.measures.gates import RIGHT
from toymodels.diagnosis.registry import COMPUTED, SERVED, Subject
from toymodels.diagnosis.verdict import VERDICTS, Diagnosis
from toymodels.figures.series import PALETTE
from toymodels.figures.style import Drawing, default_style, embedded, heading, new_figure, quiet

_CURVES = 6
_DRAWN = 2_000
"""Inputs whose outputs are drawn."""


def draw(subject: Subject, title: str) -> Drawing:
    """Draw W_in sorted, one-hot responses, response curves, errors by feature, features per neuron, and W_out W_in.

    For gates: W_in sorted, outputs that should be 0 and 1, outputs by case, errors by gate, features per neuron, readoff weights.
    """
    panels = (_weights, _responses, _curves, _errors, _loads, _product)
    if subject.kind == "gates":
        panels = (_weights, _outputs, _cases, _gate_errors, _loads, _readoff)
    with default_style():
        figure = new_figure(7.2)
        axes = figure.subplots(3, 2)
        for axis, panel in zip(axes.flat, panels, strict=True):
            panel(axis, subject)
        heading(figure, title)
    return Drawing("diagnosis", title, figure)


def sorted_features(subject: Subject) -> np.ndarray:
    """Return the features in the order of the neuron that reads them most, then of that weight."""
    size = np.abs(subject.layers.w_in)
    return np.lexsort((-size.max(0), size.argmax(0)))


def _weights(axis: Any, subject: Subject) -> None:
    values = subject.layers.w_in[:, sorted_features(subject)]
    limit = float(np.abs(values).max()) or 1.0
    axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", rasterized=True)
    axis.set_title("W_in, features sorted by their largest neuron", fontsize=8)
    axis.set_xlabel("feature", fontsize=8)
    axis.set_ylabel("neuron", fontsize=8)
    axis.tick_params(labelsize=7)


def _finish(axis: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Write what a panel shows, with a legend where curves have labels."""
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=6, frameon=False)
    quiet(axis, title=title, xlabel=xlabel, ylabel=ylabel)


def _responses(axis: Any, subject: Subject) -> None:
    R = subject.responses()
    own = np.diag(R)
    others = np.abs(R - np.diag(own)).max(0)
    order = np.argsort(-own)
    axis.plot(own[order], ".", markersize=3, color=PALETTE[0], label="its own output")
    axis.plot(others[order], ".", markersize=3, color=PALETTE[1], label="largest |other output|")
    axis.plot(
        np.diag(subject.responses(-1.0))[order], ".", markersize=3, color=PALETTE[2], label="its own output at −1"
    )
    _finish(axis, "responses to one feature at x = 1", "feature, by its response", "output")


def _curves(axis: Any, subject: Subject) -> None:
    amplitude = np.linspace(-1, 1, 81)
    order = np.argsort(subject.share)
    for i in order[np.linspace(0, subject.n - 1, min(_CURVES, subject.n)).astype(int)]:
        x = np.zeros((len(amplitude), subject.n))
        x[:, i] = amplitude
        axis.plot(amplitude, subject.layers(x)[:, i], linewidth=0.9, color=PALETTE[0], alpha=0.7)
    target = subject.pointwise.function(torch.from_numpy(amplitude)).numpy()
    axis.plot(amplitude, target, "k--", linewidth=0.8, label="target without M")
    _finish(axis, "output i over x_i, from the best feature to the worst", "x_i", "output i")


def _sorted_errors(axis: Any, errors: np.ndarray, levels: dict[str, float], *labels: str) -> None:
    """Draw errors, least first, with dotted lines at levels by their names."""
    axis.plot(np.sort(errors), ".", markersize=3, color=PALETTE[0])
    for name, level in levels.items():
        axis.axhline(level, color="0.6", linewidth=0.7, linestyle=":")
        axis.annotate(name, (0, level), fontsize=6, va="bottom")
    axis.set_ylim(bottom=0)
    _finish(axis, *labels)


def _errors(axis: Any, subject: Subject) -> None:
    labels = ("errors by feature (x_i > 0)", "feature, by its error", "MSE / that of the output 0")
    _sorted_errors(axis, subject.share, {"served": SERVED, "computed": COMPUTED}, *labels)


def _loads(axis: Any, subject: Subject) -> None:
    loads = subject.on.sum(1)
    axis.bar(*np.unique(loads, return_counts=True), color=PALETTE[0])
    _finish(axis, "features per neuron (on: above 0.3 of its largest)", "features", "neurons")


def _product(axis: Any, subject: Subject) -> None:
    mixing = subject.pointwise.mixing
    T = np.eye(subject.n) + (0 if mixing is None else mixing.double().numpy())
    product = subject.layers.w_out @ subject.layers.w_in
    off = ~np.eye(subject.n, dtype=bool)
    axis.plot(T[off], product[off], ".", markersize=1.5, color=PALETTE[1], label="off the diagonal", rasterized=True)
    axis.plot(np.diag(T), np.diag(product), ".", markersize=3, color=PALETTE[0], label="diagonal")
    _finish(axis, "W_out W_in against 1 + M", "entry of 1 + M", "entry of W_out W_in")


def _outputs_by_case(subject: Subject) -> list[np.ndarray]:
    """Return the outputs in the cases 00, 01, 10 and 11, for at most _DRAWN inputs."""
    x = subject.inputs.dense(slice(0, _DRAWN), dtype=torch.float64)
    outputs, cases = subject.layers(x.numpy()), subject.task.cases(x).numpy()
    return [outputs[cases == case] for case in range(4)]


def _outputs(axis: Any, subject: Subject) -> None:
    by_case, truth = _outputs_by_case(subject), subject.gate_task.truth
    for value, colour in ((0, PALETTE[0]), (1, PALETTE[1])):
        values = np.concatenate([part for part, wanted in zip(by_case, truth, strict=True) if wanted == value])
        axis.hist(
            values, np.linspace(-1, 2, 91), density=True, histtype="step", color=colour, label=f"should be {value}"
        )
    _finish(axis, "outputs", "output", "density")


def _cases(axis: Any, subject: Subject) -> None:
    by_case = _outputs_by_case(subject)
    kept = [case for case, values in enumerate(by_case) if len(values)]
    axis.boxplot([by_case[case] for case in kept], whis=(0, 100), widths=0.5)
    axis.set_xticks(range(1, len(kept) + 1), [subject.task.case_labels[case] for case in kept])
    truth = [subject.gate_task.truth[case] for case in kept]
    axis.plot(range(1, len(kept) + 1), truth, "k_", markersize=14, label="target")
    _finish(axis, "outputs by case; whiskers: all of them", "features of the gate", "output")


def _gate_errors(axis: Any, subject: Subject) -> None:
    levels = {"right when rounded": RIGHT, "affine floor": subject.gate_task.gate.affine_floor}
    _sorted_errors(axis, subject.worst, levels, "worst error by gate", "gate, by its error", "largest |error|")


def _readoff(axis: Any, subject: Subject) -> None:
    """Draw the readoff's weights by how many of the gate's two features the neuron reads."""
    pairs = subject.gate_task.pairs.numpy()
    reads = subject.on[:, pairs].sum(2).T  # gates × neurons
    parts = [subject.layers.w_out[reads == count] for count in range(3)]
    kept = [count for count, values in enumerate(parts) if len(values)]
    axis.boxplot([parts[count] for count in kept], whis=(1, 99), widths=0.5, showfliers=False)
    axis.set_xticks(range(1, len(kept) + 1), map(str, kept))
    _finish(axis, "weights of the readoff; whiskers: 1 to 99 %", "features of the gate that are on", "weight")


def page(diagnosis: Diagnosis, name: str) -> str:
    """Return the page as HTML that needs no other file."""
    subject = diagnosis.subject
    about = f"{name}: {subject.n} features, {subject.d} neurons, {subject.task.name}, {len(subject.inputs):,} inputs"
    rows = "\n".join(
        f"<tr><td>{html.escape(row['name'])}</td><td class=number>{written(row['value'])}</td>"
        f"<td>{html.escape(row['what'])}<br><b>Tells:</b> {html.escape(row['tells'])} <b>Cannot tell:</b> "
        f"{html.escape(row['cannot'])} <i>{html.escape(row['source'])}</i></td></tr>"
        for row in diagnosis.measures
    )
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in diagnosis.reasons)
    picture = embedded(draw(subject, about))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}: {diagnosis.verdict}</title>
<style>body{{font:15px/1.45 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}td{{vertical-align:top;padding:.3em .6em;
border-top:1px solid #ddd;font-size:13px}}.number{{text-align:right;white-space:nowrap}}img{{width:100%}}</style></head><body>
<h1>{diagnosis.verdict.capitalize()}</h1><p>{html.escape(about)}</p><ul>{reasons}</ul>
<p>Possible verdicts: {", ".join(VERDICTS)}. How often each is wrong: docs/howto/diagnose.md.</p>
<img alt="W_in, responses or outputs, errors, features per neuron, weights" src="{picture}">
<table>{rows}</table></body></html>
"""


def written(value: float | None) -> str:
    """Write a number with 3 digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"
