"""Where the arrays of a case lie in memory, and the drawing of shapes, types, layouts and values."""

import random
from typing import Any, NamedTuple

import numpy as np

from ..helpers import specials

FLOATS, INTEGERS = "efd", "?bBhHiIlLqQ"
NATIVE = {code: np.dtype(code) for code in FLOATS + INTEGERS}
SWAPPED = {code: dtype.newbyteorder("S") for code, dtype in NATIVE.items()}
#: Values to fill arrays with, by type.
POOLS = {
    code: np.concatenate([specials(dtype), np.arange(6).astype(dtype), specials(dtype)[:3]])
    for code, dtype in NATIVE.items()
}
#: Values whose sums are mostly finite, and of which one may be large beside the others.
TAME = {
    code: np.array([0, -0.0, -1, 1, -2.5, 2.5, -1 / 3, 1 / 3, -0.1, 7, -7, 6e-5, -6e-5, 3e4, -3e4, -3e4], code)
    if code in FLOATS
    else pool
    for code, pool in POOLS.items()
}
SLOPES = (0.01, 0.5, 0.0, -0.0, 1.0, 1.5, -0.5, -2.0, 2.0**-14, 2.0**-15, 65504.0, 65520.0, 3e38, 1e-45, 5e-324,
          1e300, -1e300, np.inf, -np.inf, np.nan)  # fmt: skip
WHOLE_NUMBERS = (0, 1, 2, -3, 7, True, False)
LENGTHS = (0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 100, 127, 128, 129, 200, 255, 257, 300)
EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 66, 70)
MOST = 300
NEVER = 1 << 62
#: How many of the outputs have elements that share memory with each other.
SELF_OVERLAPPING = 0.08


class Place(NamedTuple):
    """Where an array lies: in which block of memory, and how."""

    block: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    writeable: bool

    def of(self, memory: list[np.ndarray]) -> np.ndarray:
        array = np.ndarray(self.shape, self.dtype, memory[self.block], self.offset, self.strides)
        if not self.writeable:
            array.flags.writeable = False
        return array


def reach(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Return how far below and above its first element an array reaches, in bytes."""
    ways = [(n - 1) * step for n, step in zip(shape, strides, strict=True) if n]
    return sum(min(way, 0) for way in ways), sum(max(way, 0) for way in ways) + itemsize


class Draw:
    """The drawing of one case."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.blocks: list[bytearray] = []
        self.shared = rng.random() < 0.25
        self.only_bool = False
        self.pools = POOLS
        self.common: list[tuple[tuple[int, ...], tuple[int, ...], int, int]] = []

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def shape(self) -> tuple[int, ...]:
        rng = self.rng
        ndim = rng.choices(range(5), (6, 44, 30, 13, 7))[0]
        if ndim == 1:
            return (rng.choice(LENGTHS),)
        shape, left = [], MOST
        for _ in range(ndim):
            shape.append(rng.choice([n for n in EXTENTS if n <= left]))
            left //= shape[-1]
        if shape and self.chance(0.03):
            shape[rng.randrange(ndim)] = 0
        rng.shuffle(shape)
        return tuple(shape)

    def part(self, shape: tuple[int, ...], often: float) -> tuple[int, ...]:
        """Return a shape that broadcasts to another one."""
        if self.rng.random() < often:
            return shape
        part = tuple(1 if self.chance(0.4) else n for n in shape)
        return part[self.rng.randrange(len(part) + 1) :] if self.chance(0.5) else part

    def other(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape that is another one, or seldom the same."""
        return tuple(n + (self.rng.random() < 0.4) for n in shape) + (2,) * self.chance(0.3)

    def dtype(self) -> np.dtype:
        code = self.rng.choice(FLOATS * 6 + INTEGERS)
        return (SWAPPED if self.chance(0.06) else NATIVE)[code]

    def strides(self, shape: tuple[int, ...], itemsize: int, repeat: bool) -> tuple[int, ...]:
        rng, how = self.rng, self.rng.random()
        order = list(range(len(shape)))[::-1]
        plain = how < 0.6
        if 0.5 < how < 0.7:
            order.reverse()
        elif how >= 0.7:
            rng.shuffle(order)
        strides, span = [0] * len(shape), itemsize
        for axis in order:
            n = max(shape[axis], 1)
            step = 1 if plain else rng.choice((1, 1, 1, 2, 3, -1, -1, -2, 0 if repeat else 1))
            strides[axis] = span * step
            span = max(abs(strides[axis]) * n, span)
            if not plain and self.chance(0.05):
                span += rng.randrange(1, 9)
        return tuple(strides)

    def crowded(self, strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Return strides with which elements share memory, where the axis has more than one."""
        changed = list(strides)
        step = self.rng.choice((0, 0, 0, *strides, self.rng.randrange(itemsize)))
        changed[self.rng.randrange(len(changed))] = -step if self.chance(0.3) else step
        return tuple(changed)

    def place(
        self, dtype: np.dtype, shape: tuple[int, ...], *, output: bool = False, mask: bool = False, crowded: float = 0
    ) -> Place:
        """Return a new place, of an `output` mostly one whose elements lie apart; a `mask` has bytes of 0 and 1."""
        rng, itemsize = self.rng, dtype.itemsize
        together = self.shared and self.chance(0.8) and self.only_bool == (dtype.char == "?")
        strides = self.strides(shape, itemsize, repeat=not output)
        if crowded and shape and self.chance(crowded):
            strides = self.crowded(strides, itemsize)
        low, high = reach(shape, strides, itemsize)
        start = None
        if together and self.common and self.chance(0.5):
            # The very place of another array, or that of another type
            other = rng.choice(self.common)
            unique = all(step or n == 1 for step, n in zip(other[1], shape)) or not output
            if other[0] == shape and other[2] == itemsize and unique:
                _, strides, _, start = other
                low, high = reach(shape, strides, itemsize)
        if together:
            block = 0
            if not self.blocks:
                self.blocks.append(bytearray())
            memory = self.blocks[0]
            if start is None:
                start = rng.randrange(rng.choice((1, 2, 9, 65, 500))) - low
                start -= start % itemsize if self.chance(0.9) and start - start % itemsize >= -low else 0
            self.common.append((shape, strides, itemsize, start))
        else:
            if not self.blocks:
                self.blocks.append(bytearray())  # block 0 is the common one
            block, memory = len(self.blocks), bytearray()
            self.blocks.append(memory)
            start = rng.choice((0, 0, 0, itemsize, 3 * itemsize, 7 * itemsize)) - low
            if self.chance(0.07):
                start += rng.randrange(8)
        if len(memory) < start + high:
            fill = rng.randbytes(start + high - len(memory) + rng.randrange(0, 20))
            memory += bytes(byte & 1 for byte in fill) if mask or (together and self.only_bool) else fill
        writeable = self.chance(0.99) if output else self.chance(0.93)
        place = Place(block, dtype, shape, strides, start, writeable)
        if not mask and not (output and self.chance(0.5)):
            pool = self.pools[dtype.char]
            view = np.ndarray(shape, dtype, memory, start, strides)
            chosen = np.frombuffer(rng.randbytes(view.size), np.uint8)
            view[...] = pool[chosen % len(pool)].reshape(shape)
        return place

    def value(self, dtype: np.dtype, form: str) -> Any:
        """Return a parameter that is no array."""
        kind = self.rng.random()
        if kind < 0.6:
            return self.rng.choice(SLOPES)
        if kind < 0.75:
            return self.rng.choice(WHOLE_NUMBERS + (() if form == "raw" else (10**30,)))
        pool = POOLS[self.rng.choice(FLOATS + "?bi") if self.chance(0.3) else dtype.char]
        return self.rng.choice(pool)

    def parameter(self, main: np.dtype, shape: tuple[int, ...], form: str, mixed: float) -> Any:
        """Return a slope or a value at zero."""
        dtype = self.dtype() if self.chance(mixed) else main
        return self.value(dtype, form) if self.chance(0.6) else self.place(dtype, self.part(shape, 0.3))

    def surroundings(self) -> dict[str, Any]:
        """Return what every case has beside its arguments: thresholds, places in memory, what is in it."""
        rng = self.rng
        tuning = {
            "parallel_min_bytes": rng.choice((0, 0, 500, NEVER, NEVER)),
            "streaming_min_bytes": rng.choice((0, 64, 500, NEVER)),
            "large": rng.choice((9, 9, 256, 1 << 16)),
            "convert": rng.choice((9, 9, 256, NEVER)),
            "side": rng.choice((4, 64)),
            "tile": rng.choice((64, 256, 1 << 16)),
            "whole": rng.choice((8, 512)),
            "sums": rng.choice(("small", "tiny", "as they are")),
        }
        shifts = [rng.choice((0, 0, 8, 16, 32))] + ([rng.randrange(64)] if self.chance(0.3) else [])
        return {
            "blocks": [bytes(block) for block in self.blocks], "shifts": shifts, "tuning": tuning,
            "style": rng.randrange(4),
        }  # fmt: skip
