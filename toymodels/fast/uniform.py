"""Draw the uniform numbers that torch draws, from the state of its generator, three times as fast.

The generator is the Mersenne Twister (Matsumoto & Nishimura, "Mersenne Twister", ACM TOMACS 8, 1998), of which torch makes one
number at a time. Here a loop makes all numbers of a block of 624, which a processor does for several at once.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from toymodels.fast.compiled import compiled_loop

_WORDS = 632
"""Words of a state: the seed, how many numbers are left in the block (plus 1), the next one's place, 624 numbers, others."""


def fill_uniform(out: Any, generator: torch.Generator) -> None:
    """Fill a flat float32 array with the numbers in [0, 1) of `torch.rand`, and move the processor's generator on as it does."""
    if not _is_known():
        torch.rand(out.shape, generator=generator, out=torch.from_numpy(out))
        return
    state = generator.get_state()
    _fill(state.numpy().view(np.uint64), out)
    generator.set_state(state)


@functools.cache
def _is_known() -> bool:
    """Whether torch's generator keeps its state, and makes numbers of it, in the way that is written here."""
    one, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    state = other.get_state()
    if state.dtype != torch.uint8 or len(state) != 8 * _WORDS:
        return False
    for count in (1000, 248, 5):  # past the end of a block, to the end of one, and from there
        numbers = np.empty(count, np.float32)
        _fill(state.numpy().view(np.uint64), numbers)
        theirs = torch.rand(count, generator=one).numpy()
        if not (np.array_equal(numbers, theirs) and torch.equal(state, one.get_state())):
            return False
    return True


@compiled_loop
def _fill(words, out):  # type: ignore[no-untyped-def]
    """Fill an array with numbers, and change the words of the state."""
    block = np.empty(624, np.uint32)
    for i in range(624):
        block[i] = np.uint32(words[3 + i])
    left, place, done = np.int64(words[1] & np.uint64(0xFFFFFFFF)), np.int64(words[2]), np.int64(0)
    first, second, digits = np.uint32(0x9D2C5680), np.uint32(0xEFC60000), np.uint32(0xFFFFFF)
    unit = np.float32(2.0**-24)
    while done < out.shape[0]:
        if left == 1:
            _renew(block)
            left, place = np.int64(625), np.int64(0)
        count = min(left - 1, out.shape[0] - done)
        for i in range(count):
            number = block[place + i]
            number ^= number >> np.uint32(11)
            number ^= (number << np.uint32(7)) & first
            number ^= (number << np.uint32(15)) & second
            number ^= number >> np.uint32(18)
            out[done + i] = np.float32(np.int32(number & digits)) * unit
        done, place, left = done + count, place + count, left - count
    for i in range(624):
        words[3 + i] = block[i]
    words[1] = (words[1] & np.uint64(0xFFFFFFFF00000000)) | np.uint64(left)
    words[2] = np.uint64(place)


@compiled_loop
def _renew(block):  # type: ignore[no-untyped-def]
    """Replace the 624 numbers by the next ones. Each loop reads what an earlier one has written, and never what it writes."""
    for i in range(227):
        block[i] = block[i + 397] ^ _twisted(block[i], block[i + 1])
    for i in range(227, 454):
        block[i] = block[i - 227] ^ _twisted(block[i], block[i + 1])
    for i in range(454, 623):
        block[i] = block[i - 227] ^ _twisted(block[i], block[i + 1])
    block[623] = block[396] ^ _twisted(block[623], block[0])


@compiled_loop
def _twisted(this, following):  # type: ignore[no-untyped-def]
    joined = (this & np.uint32(0x80000000)) | (following & np.uint32(0x7FFFFFFF))
    return (joined >> np.uint32(1)) ^ ((np.uint32(0) - (following & np.uint32(1))) & np.uint32(0x9908B0DF))
