"""Wrong inputs of the commands diagnose, reproduce, export, dictionary, atlas and descend.

Each is (words of the command line, words that the answer must hold). Those in FILES and RUNS have the files of `prepare` beside
them, those in RUNS the record of a run, too.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

DIAGNOSE = ["diagnose", "net.pt", "--task", "relu", "--weights", "a", "b"]
DESCEND = ["descend", "layer.safetensors"]
DICTIONARY = ["dictionary", "--m", "5", "--d", "6"]
SEARCH = ["atlas", "search", "--task", "and", "--m", "6", "--d", "7"]
SUBMIT = ["atlas", "submit", "layer.safetensors"]


def prepare() -> None:
    """Write files of weights."""
    drawn = torch.Generator().manual_seed(0)
    torch.save({"a": torch.randn(4, 6, generator=drawn), "b": torch.randn(6, 4, generator=drawn)}, "net.pt")
    torch.save({"M": torch.randn(5, 5, generator=drawn)}, "M.pt")
    save_file({"weight": torch.randn(4, 6, generator=drawn), "bias": torch.zeros(4)}, "layer.safetensors")
    save_file({"weight": torch.randn(4, 6, generator=drawn), "bias": torch.zeros(3)}, "short.safetensors")
    save_file({"weight": torch.full((4, 6), float("nan")), "bias": torch.zeros(4)}, "nan.safetensors")
    Path("text.safetensors").write_text("no tensor")


FILES = [
    (["diagnose", "nope.pt", "--task", "relu"], "is not there"),
    (["diagnose", "net.pt"], "name the task"),
    (["diagnose", "net.pt", "--task", "and"], "make no chain"),
    (["diagnose", "net.pt", "--task", "relu"], "in more than one way"),
    (["diagnose", "net.pt", "--task", "relu", "--m", "7"], "make no chain"),
    (["diagnose", "net.pt", "--task", "relu", "--weights", "a", "c"], "there is no tensor 'c'"),
    (["diagnose", "text.safetensors", "--task", "relu"], "no weights that can be read"),
    ([*DIAGNOSE, "--s", "0"], "strictly between 0 and m"),
    ([*DIAGNOSE, "--s", "nan"], "a finite number"),
    ([*DIAGNOSE, "--inputs", "exactly", "--s", "2.5"], "a whole number of active features"),
    ([*DIAGNOSE, "--values", "nothing"], "unknown distribution"),
    ([*DIAGNOSE, "--biases", "a", "b"], "the bias a has shape"),
    ([*DIAGNOSE, "--matrix", "M.pt"], "it must be 6 × 6"),
    ([*DIAGNOSE, "--matrix", "net.pt"], "it must hold M alone"),
    ([*DIAGNOSE, "--eval-inputs", "10"], "at least 100"),
    ([*DIAGNOSE, "--seed", "-1"], "at least 0"),
    ([*DIAGNOSE, "--out", "text.safetensors"], "cannot be written"),
    (["diagnose", "net.pt", "--task", "relu(sigma=0.1)", "--weights", "a", "b"], "without mixing it has no effect"),
    (["diagnose", "net.pt", "--task", "relu(mixing=symmetric,sigma=-1)"], "a positive number"),
    (["reproduce", "qtable"], "did you mean 'q_table'"),
    (["reproduce", "q_table", "--seeds", "0", "0"], "names a seed twice"),
    (["reproduce", "q_table", "--seeds", "-1"], "at least 0"),
    (["reproduce", "q_table", "--list"], "leave out q_table"),
    (["reproduce", "--seeds", "3"], "are of one reproduction"),
    (["reproduce", "--list", "--full"], "are of one reproduction"),
    (["reproduce", "--out", "x"], "are of one reproduction"),
    (["reproduce", "q_table", "--out", "net.pt"], "is a file"),
    (["reproduce", "q_table", "--out", "."], "holds no reproduction"),
    (["export", "nope.safetensors", "x"], "nope.safetensors is missing"),
    (["export", "layer.safetensors", "x"], "no network of a record"),
    (["export", "text.safetensors", "x"], "no safetensors file"),
    (["export", "net.pt", "x"], "is not a folder"),
    ([*DESCEND, "--s", "0"], "at least 1"),
    ([*DESCEND, "--s", "9"], "from 1 to m"),
    ([*DESCEND, "--inputs", "independent"], "unknown inputs"),
    ([*DESCEND, "--activation", "swish"], "unknown activation"),
    ([*DESCEND, "--summary", "max"], "unknown summary"),
    ([*DESCEND, "--steps", "0"], "at least 1"),
    ([*DESCEND, "--out", "layer.safetensors"], "would replace it"),
    ([*DESCEND, "--out", "short.safetensors"], "not of this descent"),
    ([*DESCEND, "--out", "o.pt"], "ends in .safetensors"),
    ([*DESCEND, "--task", "and_of(k=9)"], "at most 6"),
    (["descend", "net.pt"], "it must have weight"),
    (["descend", "short.safetensors"], "a number for each of its rows"),
    (["descend", "nan.safetensors"], "must be finite"),
    ([*SUBMIT], "does not say what its layer is for"),
    ([*SUBMIT, "--task", "relu"], "the atlas has the gates"),
    ([*SUBMIT, "--task", "and", "--m", "5"], "another task or size"),
    ([*SUBMIT, "--task", "and", "--epsilon", "0.25"], "for the printed table"),
    (["atlas", "submit", "nope.safetensors", "--task", "and"], "there is no file"),
    (["atlas", "submit", "nan.safetensors", "--task", "and"], "must be finite"),
    (["atlas", "submit", "short.safetensors", "--task", "and"], "it must be (4,)"),
    (["atlas", "check", "net.pt"], "no other action does"),
    ([*SEARCH, "--seconds", "0"], "a positive number"),
    ([*SEARCH, "--out", "o"], "for the printed table"),
    (["atlas", "search", "--task", "and"], "at least one task, m and d"),
    (["atlas", "--epsilon", "nan"], "a positive number"),
    (["atlas", "--folder", "nope"], "there is no folder"),
    (["atlas", "--seconds", "3"], "are of a search"),
    ([*DICTIONARY, "--s", "9"], "from 1 to m"),
    ([*DICTIONARY, "--layers", "gaussian_like"], "add trained to layers"),
    ([*DICTIONARY, "--layers", "gaussian", "--layer", "kaiming"], "where the trained layer starts"),
    ([*DICTIONARY, "--readoff", "constant"], "not for the first layer"),
    ([*DICTIONARY, "--methods", "topk(k=1000)"], "at most 15"),
    ([*DICTIONARY, "--methods", "topk(q=3)"], "has no knob 'q'"),
    ([*DICTIONARY, "--latents", "5", "5"], "twice"),
    ([*DICTIONARY, "--threshold", "2"], "1 at most"),
    ([*DICTIONARY, "--device", "cuda"], "cuda"),
]

RUNS = [
    (["diagnose", "t", "--s", "0"], "knows its own s"),
    (["diagnose", "t", "--m", "0"], "knows its own m"),
    (["diagnose", "t", "--matrix", "M.pt"], "knows its own matrix"),
    (["diagnose", "t", "--seed", "1"], "0 trained networks for seed 1"),
    (["reproduce", "q_table", "--out", "t"], "holds no reproduction"),
    (["export", "t", "t"], "is not empty"),
    (["export", "t", "x", "--network", "nope"], "holds no network 'nope'"),
    (["descend", "t"], "is a folder"),
    (["descend", "t/seed-0/network.safetensors", "--activation", "tanh"], "whose activation is relu"),
    ([*DICTIONARY, "--out", "t"], "holds another run"),
]
