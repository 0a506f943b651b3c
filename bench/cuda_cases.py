"""The operations that `cuda_bench.py` times: who runs each, how many bytes a call moves, and what it must give."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cuda_start  # noqa: F401 before whoever looks for the driver
import numpy as np
from cuda_measure import (
    Operand,
    Run,
    context,
    copier,
    dtype_of,
    matches,
    numbers,
    parts_for,
    peers,
    repeated,
    samples,
)

import fastrelu
from fastrelu._bench.oracle import expected

#: Units of a row where there are units: of the strided, the broadcast and the counted cases.
UNITS = 256
SLOPE = 0.01


@dataclass
class Case:
    """One operation on operands of one type and size."""

    operation: str
    dtype: str
    n: int
    #: By name, whoever runs it, and how many bytes a call of each moves.
    runs: dict[str, Run] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    #: Undo what a call has written: overwrite outputs with what no kernel writes.
    resets: list[Callable[[], None]] = field(default_factory=list)
    #: Raise AssertionError where what fastrelu has written is wrong.
    checks: list[Callable[[], None]] = field(default_factory=list)
    parts: int = 1

    def add(self, name: str, run: Run, moved: int) -> None:
        """Add somebody who runs the operation."""
        self.runs[name], self.moved[name] = run, moved

    def checked(self) -> set[int]:
        """Return the parts on which fastrelu is run before anything is timed."""
        return {0, self.parts - 1}

    def check(self) -> None:
        """Run fastrelu once, and compare with the oracle before anything is timed."""
        for reset in self.resets:
            reset()
        context().synchronize()
        for k in self.checked():
            self.runs["fastrelu"](k)
        for each in self.checks:
            each()


def operand(case: Case, seed: int | None, dtype: str = "", n: int = 0) -> Operand:
    """Return an operand of a case; without a seed, an output."""
    dtype, n = dtype or case.dtype, n or case.n
    made = Operand(n, case.parts, dtype, None if seed is None else numbers(dtype, seed))
    if seed is None:
        case.resets.append(made.poison)
    return made


def must_be(case: Case, y: Operand, name: str, *operands: Any) -> None:
    """Have an output compared with what the oracle makes of operands, at its beginning, its middle and its end."""

    @functools.cache
    def wanted(start: int, count: int) -> np.ndarray:
        values = [repeated(x.values, start, count, x.n) if isinstance(x, Operand) else x for x in operands]
        return expected(name, values, y.dtype)

    def check() -> None:
        for k in case.checked():
            for start, count in samples(y.n):
                if not matches(y.sample(start, count, k), wanted(start, count)):
                    raise AssertionError(f"{case.operation} {case.dtype} of {case.n} elements is wrong at {start}")

    case.checks.append(check)


def forward(case: Case) -> None:
    """`relu` into another array."""
    x, y = operand(case, 0), operand(case, None)
    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.relu(x.views[k], out=y.views[k]), 2 * x.nbytes)
    torch, cupy = peers()
    if torch is not None:
        case.add("torch", lambda k: torch.clamp_min(x.torch[k], 0, out=y.torch[k]), 2 * x.nbytes)
        case.add("torch relu", lambda k: torch.relu(x.torch[k]), 2 * x.nbytes)
    if cupy is not None and case.dtype != "bfloat16":
        zero = cupy.zeros((), case.dtype)
        case.add("cupy", lambda k: cupy.maximum(x.cupy[k], zero, out=y.cupy[k]), 2 * x.nbytes)
    must_be(case, y, "relu", x)


def leaky(case: Case) -> None:
    """`leaky_relu` with one slope."""
    x, y = operand(case, 0), operand(case, None)
    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.leaky_relu(x.views[k], SLOPE, out=y.views[k]), 2 * x.nbytes)
    torch, _ = peers()
    if torch is not None:
        aten = torch.ops.aten
        case.add("torch", lambda k: aten.leaky_relu.out(x.torch[k], SLOPE, out=y.torch[k]), 2 * x.nbytes)
    must_be(case, y, "leaky_relu", x, SLOPE)


def in_place(case: Case) -> None:
    """`relu_`."""
    x, y = operand(case, 0), operand(case, None)
    case.add("copy", copier(y, operand(case, None)), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.relu_(x.views[k]), 2 * x.nbytes)
    torch, cupy = peers()
    if torch is not None:
        case.add("torch", lambda k: torch.relu_(x.torch[k]), 2 * x.nbytes)
    if cupy is not None and case.dtype != "bfloat16":
        zero = cupy.zeros((), case.dtype)
        case.add("cupy", lambda k: cupy.maximum(x.cupy[k], zero, out=x.cupy[k]), 2 * x.nbytes)
    case.resets.append(lambda: x.fill(x.values))
    must_be(case, x, "relu", x)


def backward(case: Case) -> None:
    """`relu_backward`."""
    grad, x, y = operand(case, 1), operand(case, 0), operand(case, None)
    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.relu_backward(grad.views[k], x.views[k], out=y.views[k]), 3 * x.nbytes)
    torch, cupy = peers()
    if torch is not None:
        into = torch.ops.aten.threshold_backward.grad_input
        case.add("torch", lambda k: into(grad.torch[k], x.torch[k], 0, grad_input=y.torch[k]), 3 * x.nbytes)
    if cupy is not None and case.dtype != "bfloat16":
        kernel = cupy.ElementwiseKernel("T g, T x", "T r", "r = x > T(0) ? g : T(0)", "relu_backward")
        case.add("cupy kernel", lambda k: kernel(grad.cupy[k], x.cupy[k], y.cupy[k]), 3 * x.nbytes)
    must_be(case, y, "relu_backward", grad, x, 0.0)


def _mask_is_right(case: Case, x: Operand, mask: Operand) -> None:
    def check() -> None:
        for start, count in samples(x.n, 8):
            with np.errstate(invalid="ignore"):
                wanted = np.packbits(~(repeated(x.values, start, count, x.n) <= 0), bitorder="little")
            if not np.array_equal(mask.sample(start // 8, wanted.size), wanted):
                raise AssertionError(f"{case.operation} {case.dtype}: the mask is wrong at {start}")

    case.checks.append(check)


def masked(case: Case) -> None:
    """`relu_with_mask`."""
    x, y, mask = operand(case, 0), operand(case, None), operand(case, None, "uint8", -(-case.n // 8))
    moved = 2 * x.nbytes + mask.nbytes
    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add(
        "fastrelu", lambda k: fastrelu.relu_with_mask(x.views[k], out=y.views[k], mask_out=mask.views[k]), moved
    )  # fmt: skip
    case.add("fastrelu relu", lambda k: fastrelu.relu(x.views[k], out=y.views[k]), 2 * x.nbytes)
    must_be(case, y, "relu", x)
    _mask_is_right(case, x, mask)


def from_mask(case: Case) -> None:
    """`relu_backward_from_mask`."""
    grad, x, y = operand(case, 1), operand(case, 0), operand(case, None)
    mask = Operand(-(-case.n // 8), case.parts, "uint8")
    for k in range(case.parts):
        fastrelu.relu_with_mask(x.views[k], out=y.views[k], mask_out=mask.views[k])
    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add(
        "fastrelu", lambda k: fastrelu.relu_backward_from_mask(grad.views[k], mask.views[k], out=y.views[k]),
        2 * x.nbytes + mask.nbytes,
    )  # fmt: skip
    case.add(
        "fastrelu from x", lambda k: fastrelu.relu_backward(grad.views[k], x.views[k], out=y.views[k]), 3 * x.nbytes
    )  # fmt: skip
    must_be(case, y, "relu_backward", grad, x, 0.0)


def _rows(each: Operand) -> Callable[[int], Any]:
    """Return the parts of an operand as rows of `UNITS`, made once."""
    shaped = functools.cache(lambda k: each.views[k].reshape(-1, UNITS))
    for k in range(each.parts):
        shaped(k)
    return shaped


def _counts(case: Case, x: Operand, runs: int) -> Any:
    """Return where counts go, and have them compared with so many times the positive elements of each unit."""
    from fastrelu._cuda.numba_cuda import cuda

    counts, (torch, _) = cuda.to_device(np.zeros(UNITS, np.int64)), peers()
    case.resets.append(lambda: counts.copy_to_device(np.zeros(UNITS, np.int64)))
    period = min(x.n, x.values.size)
    positive = (x.values.astype("f") > 0)[:period].reshape(-1, UNITS)
    wanted = positive.sum(0) * (x.n // period) + positive[: x.n % period // UNITS].sum(0)

    def check() -> None:
        if not np.array_equal(counts.copy_to_host(), runs * wanted):
            raise AssertionError(f"{case.operation} {case.dtype} of {case.n} elements: the counts are wrong")

    case.checks.append(check)
    return counts if torch is None else torch.as_tensor(counts, device="cuda")


def counted(case: Case) -> None:
    """`relu_with_counts`."""
    x, y = operand(case, 0), operand(case, None)
    rows, into, (torch, _) = _rows(x), _rows(y), peers()
    counts = _counts(case, x, len(case.checked()))
    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.relu_with_counts(rows(k), counts, out=into(k)), 2 * x.nbytes)
    if torch is not None:

        def theirs(k: int) -> None:
            torch.clamp_min(rows(k), 0, out=into(k))
            counts.add_((rows(k) > 0).sum(0))

        case.add("torch", theirs, 2 * x.nbytes)
    must_be(case, y, "relu", x)


def counts_alone(case: Case) -> None:
    """`count_active`, which writes next to nothing."""
    x = operand(case, 0)
    rows, counts, (torch, _) = _rows(x), _counts(case, x, 1), peers()
    case.add("copy", copier(x, Operand(case.n, case.parts, case.dtype)), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.count_active(rows(k), out=counts), x.nbytes)
    if torch is not None:
        case.add("torch", lambda k: torch.sum(rows(k) > 0, 0, out=counts), x.nbytes)


def slope(case: Case) -> None:
    """`leaky_relu_backward_with_slope_grad`, one slope for all."""
    from fastrelu._cuda.numba_cuda import cuda

    inputs, y = [], operand(case, None)
    for seed in range(2):  # finite, or there would be nothing to compare of a sum
        values = numbers(case.dtype, seed).copy()
        values[~np.isfinite(values.astype("f"))] = -1
        inputs.append(Operand(case.n, case.parts, case.dtype, values))
    x, grad = inputs
    torch, _ = peers()
    total = cuda.to_device(np.zeros(()))
    case.resets.append(lambda: total.copy_to_device(np.full((), np.nan)))
    into = total if torch is None else torch.as_tensor(total, device="cuda")

    def ours(k: int) -> object:
        return fastrelu.leaky_relu_backward_with_slope_grad(
            grad.views[k], x.views[k], 0.25, out=y.views[k], slope_out=into
        )  # fmt: skip

    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add("fastrelu", ours, 3 * x.nbytes)
    if torch is not None:
        prelu = torch.ops.aten._prelu_kernel_backward
        number = torch.tensor([0.25], device="cuda", dtype=x.torch[0].dtype)
        # which leaves a gradient of the slope for every element
        case.add("torch", lambda k: prelu(grad.torch[k], x.torch[k], number)[1].sum(), 3 * x.nbytes)

    def check() -> None:
        gx, xx = (each.values[: min(x.n, x.values.size)].astype("d") for each in (grad, x))
        terms = np.where(xx < 0, gx * xx, 0)
        wanted = terms.sum() * (x.n // terms.size) + terms[: x.n % terms.size].sum()
        np.testing.assert_allclose(float(total.copy_to_host()), wanted, rtol=1e-9)

    case.checks.append(check)
    must_be(case, y, "leaky_relu_backward", grad, x, 0.25, 0.25)


class _Shaped:
    """The parts of an operand as another array each: for Numba's arrays and torch's tensors alike."""

    def __init__(self, each: Operand, shape: tuple[int, ...], steps: tuple[int, ...]) -> None:
        """Take the parts' memory as of a shape; `steps` are its strides in elements."""
        torch, _ = peers()
        self.made = []
        for view in each.views:
            if torch is not None:
                self.made.append(view.as_strided(shape, steps))
            else:
                kind = type(view)
                strides = tuple(step * each.dtype.itemsize for step in steps)
                self.made.append(kind(shape, strides, view.dtype, gpu_data=view.gpu_data))

    def __getitem__(self, k: int) -> Any:
        return self.made[k]


def _shaped_relu(case: Case, shape: tuple[int, ...], steps: tuple[int, ...], where: Callable[..., Any]) -> None:
    """Add `relu` from an array of some strides to a contiguous one; element k of the latter is `where(k)` of `x`."""
    x = operand(case, 0)
    y = operand(case, None, n=shape[0] * shape[1])
    source, target = _Shaped(x, shape, steps), _Shaped(y, shape, (shape[1], 1))
    moved, (torch, _) = x.nbytes + y.nbytes, peers()
    case.add("copy", copier(x, operand(case, None)), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.relu(source[k], out=target[k]), moved)
    if torch is not None:
        case.add("torch", lambda k: torch.clamp_min(source[k], 0, out=target[k]), moved)

    def check() -> None:
        for start, count in samples(y.n):
            values = x.values[where(start + np.arange(count)) % min(x.n, x.values.size)]
            if not matches(y.sample(start, count), expected("relu", (values,), y.dtype)):
                raise AssertionError(f"{case.operation} {case.dtype} of {case.n} elements is wrong at {start}")

    case.checks.append(check)


def strided(case: Case) -> None:
    """`relu` of every other column of rows of 256: of each sector of memory, half is of use."""
    _shaped_relu(case, (case.n // UNITS, UNITS // 2), (UNITS, 2), lambda k: 2 * k)


def transposed(case: Case) -> None:
    """`relu` of a transposed array, whose columns are rows of 256."""
    rows = case.n // UNITS
    _shaped_relu(case, (UNITS, rows), (1, UNITS), lambda k: k % rows * UNITS + k // rows)


def broadcast(case: Case) -> None:
    """`leaky_relu` with a slope for each of the 256 units of a row."""
    x, y = operand(case, 0), operand(case, None)
    slopes = Operand(UNITS, 1, case.dtype, np.linspace(0.01, 0.9, UNITS).astype(dtype_of(case.dtype)))
    rows, into, row, (torch, _) = _rows(x), _rows(y), slopes.views[0], peers()
    case.add("copy", copier(x, y), 2 * x.nbytes)
    case.add("fastrelu", lambda k: fastrelu.leaky_relu(rows(k), row, out=into(k)), 2 * x.nbytes)
    if torch is not None:
        case.add("torch prelu", lambda k: torch.nn.functional.prelu(rows(k), row), 2 * x.nbytes)

    def check() -> None:
        for start, count in samples(y.n, UNITS):
            values = repeated(x.values, start, count, x.n)
            wanted = expected("leaky_relu", (values, np.resize(slopes.values, count)), y.dtype)
            if not matches(y.sample(start, count), wanted):
                raise AssertionError(f"{case.operation} {case.dtype} of {case.n} elements is wrong at {start}")

    case.checks.append(check)


#: By name, what prepares an operation, and about how many operands of the size of `x` there are.
OPERATIONS: dict[str, tuple[Callable[[Case], None], int]] = {
    "forward": (forward, 2), "in place": (in_place, 3), "backward": (backward, 3), "leaky": (leaky, 2),
    "masked": (masked, 3), "from mask": (from_mask, 4), "counted": (counted, 2), "counts": (counts_alone, 2),
    "slope": (slope, 3), "strided": (strided, 3), "transposed": (transposed, 3), "broadcast": (broadcast, 2),
}  # fmt: skip


def case_of(operation: str, dtype: str, nbytes: int) -> Case:
    """Return an operation on operands of so many bytes, with memory, contents and whoever runs it."""
    prepare, operands = OPERATIONS[operation]
    case = Case(operation, dtype, nbytes // dtype_of(dtype).itemsize, parts=parts_for(nbytes, operands))
    prepare(case)
    return case
