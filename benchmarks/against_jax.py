"""Is a step of small networks as fast as JAX makes it, one network at a time or 16 stacked by vmap?

JAX is not among the requirements: the script runs in an environment of its own that has JAX, and in ours for our column.

    python benchmarks/against_jax.py            # in an environment with JAX: prints its rates
    python -m benchmarks.against_jax --ours     # in ours
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toymodels.core.training import Trainer

SIZES = ((20, 50, 256, 2), (20, 50, 256, 4), (16, 16, 256, 8), (30, 60, 512, 4))
"""m, d, inputs per step, exponent of the loss."""
ACTIVE, STACK, REPEATS, SECONDS = 4.3, 16, 5, 1.0
IN_TURN = (4, 16, 64, 256)
"""Networks of one process that take their steps one after the other."""
AT_ONCE = 20
"""Steps that each program takes in a call: Python waits no longer between them than it must."""
CASES = (1.0, 2.0, 2.0, 20.0)
"""Weights of the cases 00, 01, 10, 11; their values do not change what a step costs."""


def rate(steps: Callable[[int], object], networks: int) -> float:
    """Return the median of model-steps a second; `steps(n)` takes n steps of all networks, n a multiple of `AT_ONCE`."""
    steps(AT_ONCE)
    began = time.perf_counter()
    steps(5 * AT_ONCE)
    count = AT_ONCE * max(1, round(5 * SECONDS / (time.perf_counter() - began)))
    rates = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        steps(count)
        rates.append(count * networks / (time.perf_counter() - began))
    return statistics.median(rates)


def ours(m: int, d: int, batch: int, p: int) -> dict[str, float]:
    """Return our rate, plain PyTorch's and that of a matrix product (GFLOP/s), all in one thread."""
    import torch

    from benchmarks.harness import matmul
    from benchmarks.training import pair_of_trainers

    torch.set_num_threads(1)
    new, plain = pair_of_trainers(m, d, batch, float(p), "case")
    others = [pair_of_trainers(m, d, batch, float(p), "case")[0] for _ in range(max(IN_TURN))]

    def in_turn(trainers: Sequence[Trainer]) -> float:
        def steps(count: int) -> None:
            for _ in range(count // AT_ONCE):
                for one in trainers:
                    one.advance_by(AT_ONCE)

        return rate(steps, len(trainers))

    for one in (new, *others):
        one.advance()  # the first step is taken alone
    product = matmul()()
    # Three products with the readoff and two with the first layer; a multiplication and an addition for each entry.
    operations = 2 * batch * d * (3 * m * (m - 1) // 2 + 2 * m)
    return {
        "ours": in_turn([new]),
        **{f"{count} in turn": in_turn(others[:count]) for count in IN_TURN},
        "plain PyTorch": rate(lambda count: [plain.step() for _ in range(count)], 1),
        "GFLOP/s": product,
        "allowed by its products": 1e9 * product / operations,
    }


def by_jax(m: int, d: int, batch: int, p: int) -> dict[str, float]:
    """Return the rates of one network, and of a stack of them."""
    import jax
    import jax.numpy as jnp

    pairs = jnp.stack(jnp.triu_indices(m, 1))
    table = jnp.array(CASES)

    def loss(weights: Any, x: Any) -> Any:
        first, offset, second, bias = weights
        outputs = jax.nn.relu(x @ first + offset) @ second + bias
        one, other = x[:, pairs[0]], x[:, pairs[1]]
        shares = table[(2 * one + other).astype(int)]
        return (shares * jnp.abs(outputs - one * other) ** p).mean()

    def step(state: Any) -> Any:
        weights, means, squares, key, count = state
        key, drawn = jax.random.split(key)
        x = (jax.random.uniform(drawn, (batch, m)) < ACTIVE / m).astype(jnp.float32)
        slopes, count = jax.grad(loss)(weights, x), count + 1
        means = [0.9 * mean + 0.1 * slope for mean, slope in zip(means, slopes, strict=True)]
        squares = [0.999 * square + 0.001 * slope**2 for square, slope in zip(squares, slopes, strict=True)]
        size = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        moved = zip(weights, means, squares, strict=True)
        weights = [w - size * mean / (jnp.sqrt(square) + 1e-8) for w, mean, square in moved]
        return weights, means, squares, key, count

    def start(key: Any) -> Any:
        shapes = ((m, d), (d,), (d, pairs.shape[1]), (pairs.shape[1],))
        keys = jax.random.split(key, 4)
        weights = [0.2 * jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
        zeros = [jnp.zeros(shape) for shape in shapes]
        return weights, zeros, zeros, key, jnp.zeros(())

    found = {}
    for name, networks in (("JAX, 1", 1), (f"JAX, {STACK} stacked", STACK)):
        keys = jax.random.split(jax.random.key(0), networks)
        state = jax.vmap(start)(keys) if networks > 1 else start(keys[0])
        one = jax.vmap(step) if networks > 1 else step
        many = jax.jit(lambda s, one=one: jax.lax.fori_loop(0, AT_ONCE, lambda _, inner: one(inner), s))

        def steps(count: int, many: Any = many, state: Any = state) -> None:
            for _ in range(count // AT_ONCE):
                state = many(state)
            jax.block_until_ready(state)

        found[name] = rate(steps, networks)
    return found


def main() -> None:
    """Print a line for each size."""
    measure = ours if "--ours" in sys.argv else by_jax
    for size in SIZES:
        words = ", ".join(f"{name} {value:,.0f}" for name, value in measure(*size).items())
        print(f"m = {size[0]}, d = {size[1]}, batch {size[2]}, p = {size[3]}: {words} model-steps a second", flush=True)


if __name__ == "__main__":
    main()
