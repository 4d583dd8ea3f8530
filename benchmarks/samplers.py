"""Is drawing s of m features faster than ranking m uniforms (samplers)? Where does a first layer that adds up the s
active columns beat the dense product (first-layer)?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.harness import Case, Row, alternate
from toymodels.core.features import SparseFeatures, dense

WANTED = 5.0


def cases(quick: bool) -> list[Case]:
    """Samplers over (m, s), layers over (m, d) and numbers of active features."""
    timing = {"repeats": 3 if quick else 7, "seconds": 0.05 if quick else 0.15}
    sizes = [(100, 2), (100, 4), (100, 8), (1000, 2), (1000, 4), (1000, 10), (10_000, 3), (10_000, 30)]
    widths: list[tuple[int, int, int | float]]
    widths = [(m, d, 3) for m in (50, 100, 200, 500, 1000, 4000) for d in (50, 200, 1000)]
    widths += [(m, d, 4.3) for m in (50, 100, 200, 1000) for d in (50, 200)]
    if quick:
        sizes, widths = [(100, 3), (1000, 3)], [(100, 50, 3), (1000, 200, 4.3)]
    found = [Case("samplers", sampler, {"sizes": sizes, "n": 1024 if quick else 4096, **timing})]
    return [*found, Case("first-layer", first_layer, {"sizes": widths, "batch": 1024, **timing})]


def sampler(sizes: list[tuple[int, int]], n: int, repeats: int, seconds: float) -> list[Row]:
    """n inputs with exactly s of m active."""
    rows = []
    for m, s in sizes:
        features, generator = SparseFeatures.exactly(m, s), torch.Generator().manual_seed(0)

        def new(features: SparseFeatures = features, generator: torch.Generator = generator) -> torch.Tensor:
            return features.sample(n, generator).indices

        def ranks(m: int = m, s: int = s) -> torch.Tensor:
            return torch.rand(n, m).topk(s, dim=1).indices

        found = alternate({"new": new, "ranks": ranks}, repeats, seconds)
        rows.append(
            Row(
                f"m = {m:,}, s = {s}, {n:,} inputs", "ms", found.time("new", 1e3), found.matmul, found.peak_mib,
                "torch.rand(n, m).topk(s)", found.time("ranks", 1e3), found.ratio("ranks", "new"), WANTED,
            )
        )  # fmt: skip
    return rows


def first_layer(sizes: list[tuple[int, int, int | float]], batch: int, repeats: int, seconds: float) -> list[Row]:
    """x Wᵀ and the gradient with respect to W from indices: by embedding_bag ("columns": on a weight held as (m + 1, d),
    "transposed": held as (d, m), as the library does, and turned over each step), and by the dense product.

    The indices of a whole number of active features are exactly so many; of others, padded: independent features.
    """
    rows = []
    for m, d, s in sizes:
        generator = torch.Generator().manual_seed(0)
        exact = isinstance(s, int)
        features = SparseFeatures.exactly(m, s) if isinstance(s, int) else SparseFeatures.independent(m, s / m)
        indices = features.sample(batch, generator).indices
        weight, gradient = torch.randn(d, m, generator=generator), torch.randn(batch, d, generator=generator)
        found = alternate(layer_ways(weight, indices, gradient), repeats, seconds)
        active = f"exactly {s}" if exact else f"{s} in expectation, {indices.shape[1]} at most"
        for name in ("columns", "transposed"):
            rows.append(
                Row(
                    f"m = {m:,}, d = {d:,}, {active}, batch {batch:,}: {name}", "ms", found.time(name, 1e3), found.matmul,
                    found.peak_mib, "dense product", found.time("dense", 1e3), found.ratio("dense", name),
                )
            )  # fmt: skip
    return rows


def layer_ways(
    weight: torch.Tensor, indices: torch.Tensor, gradient: torch.Tensor
) -> dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]]:
    """Functions that return x Wᵀ and the gradient of W, (m + 1, d) for "columns"; `indices` are padded with m."""
    m = weight.shape[1]
    held = functional.pad(weight.T, (0, 0, 0, 1)).contiguous().requires_grad_()
    weight = weight.clone().requires_grad_()

    def result(z: torch.Tensor, parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return z, torch.autograd.grad(z, parameter, gradient)[0]

    def bag(table: torch.Tensor) -> torch.Tensor:
        return functional.embedding_bag(indices, table, mode="sum", padding_idx=m)

    return {
        "columns": lambda: result(bag(held), held),
        "transposed": lambda: result(bag(functional.pad(weight.T, (0, 0, 0, 1))), weight),
        "dense": lambda: result(functional.linear(dense(indices, m), weight), weight),
    }
