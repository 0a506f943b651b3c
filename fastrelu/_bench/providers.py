"""The table of providers: who competes, and in whose own words.

`bench/`, the tests and the command line read this one table. The code of an entry is Python as a user would write it,
timed like `timeit` does, so that nothing stands between a provider and the clock. Arrays and scalars are
named as in `cases`; what else the code names, the entry's `names` make. To add a provider, add an entry.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._operations import UFUNCS, Operation
from . import limit, naive
from .cases import BACKWARD, FLOATS, INTEGERS, MASKED, TYPES, Case, Operands, is_slope

Code = Mapping[tuple[str, str], str]
Maker = Callable[["Names"], Any]

#: Operation names, short: the tables below stay readable
R, L, RG, LG = "relu", "leaky_relu", "relu_grad", "leaky_relu_grad"
RB, LB = "relu_backward", "leaky_relu_backward"


class Names(dict[str, Any]):
    """What a provider's code may name: the operands of the case and the provider's own things, made on demand."""

    def __init__(self, operands: Operands, makers: Mapping[str, Maker]) -> None:
        self.operands = operands
        self.case = operands.case
        self._makers = makers

    def __missing__(self, name: str) -> Any:
        if name not in self._makers:
            return self.operands[name]
        value = self[name] = self._makers[name](self)
        return value


@dataclass(frozen=True)
class Provider:
    """One competitor."""

    name: str
    #: "fastrelu", "peer" or "limit"
    role: str
    #: ``{(operation, mode): code}``; for the mode "new" it is an expression
    code: Code
    names: Mapping[str, Maker] = field(default_factory=dict)
    dtypes: tuple[str, ...] = FLOATS
    layouts: tuple[str, ...] | None = None
    #: A module that must be installed, and the command that installs it
    module: str = ""
    install: str = ""
    #: Another reason to be left out
    missing: Callable[[], str | None] = lambda: None
    max_size: int | None = None
    #: Where the result is, if not where the mode says
    result: Maker | None = None
    #: False: it does not compute the operation, as a memory copy
    computes: bool = True
    set_threads: Callable[[int], None] = lambda count: None

    def supports(self, case: Case) -> bool:
        """Say whether this provider takes part in a case."""
        return (
            (case.operation, case.mode) in self.code
            and case.dtype in self.dtypes
            and (self.max_size is None or case.size <= self.max_size)
            and (self.layouts is None or case.layout in self.layouts)
        )

    def left_out(self) -> str | None:
        """Return why this provider cannot run here, or None."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return f"not installed; {self.install}"
        return self.missing()


def module(name: str) -> Maker:
    """Return a maker that imports a module when a case needs it."""
    return lambda names: importlib.import_module(name)


def _without_mask(code: Code, operations: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the code with which a provider that has no masks runs against one."""
    modes = {"mask": "out", "mask inplace": "inplace"}
    return {(name, masked): code[name, mode] for name in operations for masked, mode in modes.items()}


NUMBERS = (*FLOATS, *INTEGERS)
#: Of those who compute in bfloat16 too
WIDE = (*FLOATS, "bfloat16")
PEERS = 'pip install "fastrelu[peers]"'


def _from_lists(names: Names) -> np.ndarray:
    """Return what the pure Python loop has put into lists."""
    case = names.case
    where = "out_items" if case.mode == "out" else "grads" if case.backward else "items"
    return np.array(names[where], dtype=case.result_dtype)


def _python() -> Provider:
    # v comes first: max(nan, 0.0) is nan and max(-0.0, 0.0) is -0.0, the other way round they are 0.0
    forward, leaky = "[max(v, 0.0) for v in items]", "[v * slope if v < 0 else v for v in items]"
    backward = "[0.0 if v <= 0 else g for g, v in zip(grads, items)]"
    return Provider(
        "Python max() loop", "peer",
        {
            (R, "new"): forward, (R, "out"): f"out_items[:] = {forward}", (R, "inplace"): f"items[:] = {forward}",
            (L, "new"): leaky, (L, "out"): f"out_items[:] = {leaky}", (L, "inplace"): f"items[:] = {leaky}",
            (RB, "new"): backward, (RB, "out"): f"out_items[:] = {backward}",
            (RB, "inplace"): f"grads[:] = {backward}",
        },
        max_size=1_000_000, layouts=("contiguous",), result=_from_lists,
    )  # fmt: skip


_NUMPY = [
    Provider(
        "numpy.maximum(x, 0)", "peer",
        {
            (R, "new"): "np.maximum(x, 0)", (R, "out"): "np.maximum(x, 0, out=out)",
            (R, "inplace"): "np.maximum(x, 0, out=x)",
        },
        dtypes=(*NUMBERS, "bfloat16"),
    ),
    Provider(
        "numpy.maximum(x, zeros)", "peer",
        {
            (R, "new"): "np.maximum(x, zeros)", (R, "out"): "np.maximum(x, zeros, out=out)",
            (R, "inplace"): "np.maximum(x, zeros, out=x)",
        },
        dtypes=TYPES,
    ),
    Provider(
        "numpy.where", "peer",
        {
            (R, "new"): "np.where(x > 0, x, 0)",
            (L, "new"): "np.where(x < 0, x * slope, x)",
            (RG, "new"): "(x > 0).astype(x.dtype)",
            (LG, "new"): "np.where(x > 0, one, s)",
            (RB, "new"): "np.where(x > 0, grad, 0)",
            (LB, "new"): "np.where(x > 0, grad, grad * slope)",
        },
        dtypes=NUMBERS,
    ),
    Provider(
        "numpy.clip", "peer",
        {
            (R, "new"): "np.clip(x, 0, None)", (R, "out"): "np.clip(x, 0, None, out=out)",
            (R, "inplace"): "np.clip(x, 0, None, out=x)",
        },
        dtypes=NUMBERS,
    ),
    Provider(
        "x * (x > 0)", "peer",
        {
            (R, "new"): "x * (x > 0)", (R, "out"): "np.multiply(x, x > 0, out=out)", (R, "inplace"): "x *= x > 0",
            (RB, "new"): "grad * (x > 0)", (RB, "inplace"): "grad *= x > 0",
        },
        dtypes=NUMBERS,
    ),
    Provider(
        "x[x < 0] = 0", "peer", {(R, "inplace"): "x[x < 0] = 0", (RB, "inplace"): "grad[x <= 0] = 0"},
        dtypes=NUMBERS,
    ),
    Provider(
        "numpy.multiply + numpy.maximum", "peer",
        {
            (L, "new"): "np.maximum(x, x * slope)",
            (L, "out"): "np.multiply(x, slope, out=out); np.maximum(x, out, out=out)",
            (L, "inplace"): "np.multiply(x, slope, out=scratch); np.maximum(x, scratch, out=x)",
        },
        dtypes=WIDE,
    ),
    Provider(
        "numpy.greater + numpy.multiply", "peer",
        {
            (RB, "out"): "np.greater(x, 0, out=mask); np.multiply(grad, mask, out=out)",
            (RB, "inplace"): "np.greater(x, 0, out=mask); np.multiply(grad, mask, out=grad)",
        },
        dtypes=(*NUMBERS, "bfloat16"),
    ),
    Provider(
        "numpy.packbits + numpy.maximum", "peer",
        {
            (R, "mask"): "np.maximum(x, 0, out=out); bits[:] = np.packbits(x > 0, bitorder='little')",
            (R, "mask inplace"): "bits[:] = np.packbits(x > 0, bitorder='little'); np.maximum(x, 0, out=x)",
        },
    ),
    Provider(
        "numpy.unpackbits + numpy.multiply", "peer",
        {
            (RB, "mask"): "np.multiply(grad, np.unpackbits(bits, count=x.size, bitorder='little'), out=out)",
            (RB, "mask inplace"): "grad *= np.unpackbits(bits, count=x.size, bitorder='little')",
        },
    ),
    Provider(
        "numpy.count_nonzero", "peer",
        {
            (R, "counts"): "np.maximum(x, 0, out=out); sums += np.count_nonzero(x > 0, axis=others)",
            (R, "counts only"): "sums[:] = np.count_nonzero(x > 0, axis=others)",
        },
    ),
    Provider(
        "numpy.where + numpy.sum", "peer",
        {
            (LB, "slope grad"): (
                "np.multiply(grad, np.where(x > 0, one, s), out=out);"
                " np.sum(np.where(x < 0, grad * x, 0), axis=others, out=sums)"
            ),
            (LB, "slope grad only"): "np.sum(np.where(x < 0, grad * x, 0), axis=others, out=sums)",
        },
        dtypes=("float32", "float64"),  # of float16, a call takes 3 s for 64,000,000 elements
    ),
    Provider("numpy.heaviside", "peer", {
        (RG, "new"): "np.heaviside(x, 0)", (RG, "out"): "np.heaviside(x, 0, out=out)",
        (RG, "inplace"): "np.heaviside(x, 0, out=x)",
    }),
    Provider("numpy.greater", "peer", {
        (RG, "out"): "np.greater(x, 0, out=out)", (RG, "inplace"): "np.greater(x, 0, out=x)",
    }),
]  # fmt: skip


_NUMEXPR_TEXT = {
    R: "where(x < 0, zero, x)", L: "where(x < 0, x * s, x)", RG: "where(x > 0, one, zero)",
    LG: "where(x > 0, one, s)", RB: "where(x <= 0, zero, grad)", LB: "where(x <= 0, grad * s, grad)",
}  # fmt: skip


def _numexpr_names(names: Names) -> dict[str, Any]:
    # A Python float is a double to numexpr and would make the whole expression double
    text = _NUMEXPR_TEXT[names.case.operation]
    return {name: names.operands[name] for name in ("x", "grad", "s", "one", "zero") if name in text}


def _numexpr() -> Provider:
    code: dict[tuple[str, str], str] = {}
    for operation, text in _NUMEXPR_TEXT.items():
        target = "grad" if operation in BACKWARD else "x"
        for mode, ending in (("new", ""), ("out", ", out=out"), ("inplace", f", out={target}")):
            code[operation, mode] = f"ne.evaluate({text!r}, local_dict=given{ending})"
    return Provider(
        "numexpr", "peer", code, {"ne": module("numexpr"), "given": _numexpr_names}, ("float32", "float64"),
        module="numexpr", install=PEERS,
        set_threads=lambda count: importlib.import_module("numexpr").set_num_threads(count) and None,
    )  # fmt: skip


def _numba(target: str) -> Provider:
    calls = {R: "f(x", L: "f(x, s", RG: "f(x", LG: "f(x, s", RB: "f(grad, x", LB: "f(grad, x, s"}
    code: dict[tuple[str, str], str] = {}
    for operation, start in calls.items():
        overwritten = "grad" if operation in BACKWARD else "x"
        for mode, ending in (("new", ")"), ("out", ", out)"), ("inplace", f", {overwritten})")):
            code[operation, mode] = start + ending
    return Provider(
        f"numba @vectorize {target}", "peer", code,
        {"f": lambda names: naive.vectorized(names.case.operation, names.case.dtype, target)}, ("float32", "float64"),
    )  # fmt: skip


def _registered() -> str | None:
    """Return why Numba does not know fastrelu's functions, or None."""
    if importlib.metadata.entry_points(group="numba_extensions", module="fastrelu._njit"):
        return None
    return "Numba finds fastrelu's functions where fastrelu is installed; pip install ."


def _loop(name: str, role: str, ours: bool) -> Provider:
    def compiled(names: Names) -> Any:
        operation = names.case.operation
        function = getattr(importlib.import_module("fastrelu"), operation) if ours else None
        return naive.loop(operation, names.case.dtype, function)

    code = {
        (R, "loop"): "f(x, out)", (L, "loop"): "f(x, out, s[()])",
        (RG, "loop"): "f(x, out)", (LG, "loop"): "f(x, out, s[()])",
        (RB, "loop"): "f(grad, x, out)", (LB, "loop"): "f(grad, x, out, s[()])",
    }  # fmt: skip
    return Provider(
        name, role, code, {"f": compiled}, ("float32", "float64"), layouts=("contiguous",),
        missing=_registered if ours else lambda: None,
    )  # fmt: skip


def _torch() -> Provider:
    torch = module("torch")

    def tensor(name: str) -> Maker:
        def make(names: Names) -> Any:
            array, library = names.operands[name], torch(names)
            if array.dtype.name == "bfloat16":  # torch takes its bits
                return library.from_numpy(array.view(np.int16)).view(library.bfloat16)
            return library.from_numpy(array)

        return make

    def threads(count: int) -> None:
        importlib.import_module("torch").set_num_threads(count)

    code = {
        (R, "new"): "torch.relu(tx)", (R, "out"): "torch.clamp_min(tx, 0, out=tout)",
        (R, "inplace"): "torch.relu_(tx)",
        (L, "new"): "F.leaky_relu(tx, slope)", (L, "out"): "aten.leaky_relu.out(tx, slope, out=tout)",
        (L, "inplace"): "F.leaky_relu_(tx, slope)",
        (RG, "new"): "torch.heaviside(tx, tzero)", (RG, "out"): "torch.heaviside(tx, tzero, out=tout)",
        (RB, "new"): "aten.threshold_backward(tg, tx, 0)",
        (RB, "out"): "aten.threshold_backward.grad_input(tg, tx, 0, grad_input=tout)",
        (RB, "inplace"): "aten.threshold_backward.grad_input(tg, tx, 0, grad_input=tg)",
        (LB, "new"): "aten.leaky_relu_backward(tg, tx, slope, False)",
        (LB, "out"): "aten.leaky_relu_backward.grad_input(tg, tx, slope, False, grad_input=tout)",
        (LB, "inplace"): "aten.leaky_relu_backward.grad_input(tg, tx, slope, False, grad_input=tg)",
    }  # fmt: skip
    return Provider(
        "torch", "peer", code | _without_mask(code, (RB, LB)),
        {
            "torch": torch, "F": module("torch.nn.functional"), "aten": lambda names: torch(names).ops.aten,
            "tx": tensor("x"), "tg": tensor("grad"), "tout": tensor("out"), "tzero": tensor("zero"),
        },
        dtypes=WIDE, module="torch", install=PEERS, set_threads=threads,
        layouts=("contiguous", "every other row", "every other column", "transposed"),
    )  # fmt: skip


def _torch_prelu() -> Provider:
    plain = _torch()

    def weight(names: Names) -> Any:
        shape = [1 if axis in names["others"] else extent for axis, extent in enumerate(names["x"].shape)]
        return importlib.import_module("torch").full(shape, names["slope"], dtype=plain.names["tx"](names).dtype)

    pair: dict[str, Maker] = {
        "pair": lambda names: [None, None], "tw": weight,
        "tsums": lambda names: importlib.import_module("torch").from_numpy(names["sums"]),
    }  # fmt: skip
    code = "pair[:] = aten._prelu_kernel_backward(tg, tx, tw); torch.sum(pair[1], others, out=tsums)"
    return Provider(
        "torch prelu", "peer", {(LB, "slope grad"): code, (LB, "slope grad only"): code}, {**plain.names, **pair},
        module="torch", install=PEERS, set_threads=plain.set_threads, result=lambda names: names["pair"][0].numpy(),
    )  # fmt: skip


def _jax_function(names: Names) -> Any:
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)  # else float64 input becomes float32
    relu, leaky_relu, where = jax.nn.relu, jax.nn.leaky_relu, jax.numpy.where
    return jax.jit({
        R: relu, L: leaky_relu, RG: lambda x: where(x > 0, 1, 0).astype(x.dtype),
        RB: lambda grad, x: where(x > 0, grad, 0), LB: lambda grad, x, s: where(x > 0, grad, grad * s),
    }[names.case.operation])  # fmt: skip


def _jax_array(name: str) -> Maker:
    def make(names: Names) -> Any:
        jax = importlib.import_module("jax")
        jax.config.update("jax_enable_x64", True)
        return jax.numpy.array(names.operands[name])

    return make


#: JAX arrays are immutable: it takes part only where a result is new. Its threads cannot be set once it has started
_JAX = Provider(
    "jax.jit", "peer",
    {
        (R, "new"): "f(jx).block_until_ready()", (L, "new"): "f(jx, js).block_until_ready()",
        (RG, "new"): "f(jx).block_until_ready()", (RB, "new"): "f(jg, jx).block_until_ready()",
        (LB, "new"): "f(jg, jx, js).block_until_ready()",
    },
    {"f": _jax_function, "jx": _jax_array("x"), "jg": _jax_array("grad"), "js": _jax_array("s")},
    dtypes=WIDE, module="jax", install=PEERS, layouts=("contiguous",),
)  # fmt: skip


def _sklearn() -> Any:
    return importlib.import_module("sklearn.neural_network._base")


_SKLEARN = Provider(
    "scikit-learn in place", "peer",
    {(R, "inplace"): "inplace_relu(x)", (RB, "inplace"): "inplace_relu_derivative(z, grad)"},
    {
        "inplace_relu": lambda names: _sklearn().ACTIVATIONS["relu"],
        "inplace_relu_derivative": lambda names: _sklearn().DERIVATIVES["relu"],
    },
    module="sklearn", install='pip install "fastrelu[bench]"', layouts=("contiguous",),
)  # fmt: skip


def _ours(name: str, target: str | None) -> Provider:
    forced = f", target={target!r}" if target else ""
    code: dict[tuple[str, str], str] = {}
    for operation, row in UFUNCS.items():
        arguments = _arguments(row)
        code[operation, "new"] = f"fastrelu.{operation}({arguments}{forced})"
        code[operation, "out"] = f"fastrelu.{operation}({arguments}, out=out{forced})"
        code[operation, "inplace"] = f"fastrelu.{operation}_({arguments}{forced})"

    if target is None:
        code |= _with_mask() | _SUMS

    def threads(count: int) -> None:
        importlib.import_module("numba").set_num_threads(count)

    return Provider(name, "fastrelu", code, {"fastrelu": module("fastrelu")}, TYPES, set_threads=threads)


def _with_mask() -> dict[tuple[str, str], str]:
    code: dict[tuple[str, str], str] = {}
    for operation, row in MASKED.items():
        into = ", mask_out=bits" if row.writes_bitmask else ""
        code[operation, "mask"] = f"fastrelu.{row.name}({_arguments(row)}, out=out{into})"
        code[operation, "mask inplace"] = f"fastrelu.{row.twin}({_arguments(row)}{into})"
    return code


def _arguments(row: Operation) -> str:
    """Return the arguments of a call: data and the slope; other parameters have their defaults."""
    data = [
        "bits" if operand.kind == "bitmask" else operand.name for operand in row.operands if operand.name in row.data
    ]
    return ", ".join([*data, *("slope" for operand in row.parameters if operand.name == "negative_slope")])


_SUMS = {
    (R, "counts"): "fastrelu.relu_with_counts(x, sums, axis=axis, out=out)",
    (R, "counts only"): "fastrelu.count_active(x, axis=axis, out=sums)",
    (LB, "slope grad"): (
        "fastrelu.leaky_relu_backward_with_slope_grad(grad, x, slope, axis=axis, out=out, slope_out=sums)"
    ),
    (LB, "slope grad only"): "fastrelu.leaky_relu_slope_grad(grad, x, axis=axis, out=sums)",
}


def _ours_without_sums() -> Provider:
    plain = _ours(AUTOMATIC, None).code
    code = {key: plain[key[0], "out"] for key in _SUMS}
    return Provider("fastrelu without sums", "fastrelu", code, {"fastrelu": module("fastrelu")}, computes=False)


def _ours_without_mask() -> Provider:
    code = _without_mask(_ours(AUTOMATIC, None).code, MASKED)
    return Provider("fastrelu without a mask", "fastrelu", code, {"fastrelu": module("fastrelu")})


def _raw() -> Provider:
    # A raw ufunc takes every operand; 0-d arrays of the right type spare NumPy the conversion of a Python float
    code: dict[tuple[str, str], str] = {}
    for operation, row in UFUNCS.items():
        defaults = ("s" if is_slope(each) else str(each.default or "zero") for each in row.parameters)
        given, target = ", ".join([*row.data, *defaults]), row.data[0]
        for mode, ending in (("new", ""), ("out", ", out"), ("inplace", f", {target}")):
            code[operation, mode] = f"ufuncs.{operation}({given}{ending})"
    return Provider("fastrelu.ufuncs", "fastrelu", code, {"ufuncs": module("fastrelu.ufuncs")}, TYPES)


def _default_slope() -> Provider:
    code = {
        (L, "new"): "fastrelu.leaky_relu(x)", (L, "out"): "fastrelu.leaky_relu(x, out=out)",
        (LB, "new"): "fastrelu.leaky_relu_backward(grad, x)",
        (LB, "out"): "fastrelu.leaky_relu_backward(grad, x, out=out)",
    }  # fmt: skip
    layouts = ("contiguous", "every other row", "every other column", "transposed")
    names: dict[str, Maker] = {"fastrelu": module("fastrelu")}
    return Provider("fastrelu, default slope", "fastrelu", code, names, WIDE, layouts=layouts)


def _c(kind: str) -> Provider:
    pointers: dict[str, Maker] = {
        "px": lambda names: limit.pointer(names.operands["x"]),
        "pg": lambda names: limit.pointer(names.operands["grad"]),
        "pout": lambda names: limit.pointer(names.operands["out"]),
        "n": lambda names: names.case.size,
        "f": lambda names: limit.function(f"{names.case.operation}_{kind}", names.case.dtype),
    }
    code = {(R, "out"): "f(px, None, pout, n)", (RB, "out"): "f(px, pg, pout, n)"}
    if kind == "plain":  # streaming stores would send a line that was just read to memory by the slow way
        code |= {(R, "inplace"): "f(px, None, px, n)", (RB, "inplace"): "f(px, pg, pg, n)"}
    return Provider(
        f"C, {'streaming' if kind == 'stream' else kind} stores", "limit", code, pointers, ("float32", "float64"),
        missing=limit.missing, set_threads=limit.set_threads, layouts=("contiguous",),
    )  # fmt: skip


_COPIES = [
    Provider("numpy.copyto", "limit", {(R, "out"): "np.copyto(out, x)"}, dtypes=NUMBERS, computes=False),
    Provider(
        "C copy, streaming stores", "limit", {(R, "out"): "f(px, None, pout, n)"},
        {
            "px": lambda names: limit.pointer(names.operands["x"]),
            "pout": lambda names: limit.pointer(names.operands["out"]),
            "n": lambda names: names.case.size, "f": lambda names: limit.function("copy_stream", names.case.dtype),
        },
        ("float32", "float64"), missing=limit.missing, computes=False, layouts=("contiguous",),
        set_threads=limit.set_threads,
    ),
]  # fmt: skip

AUTOMATIC = "fastrelu"

PROVIDERS: tuple[Provider, ...] = (
    _ours(AUTOMATIC, None),
    _ours("fastrelu serial", "serial"),
    _ours("fastrelu parallel", "parallel"),
    _raw(),
    _default_slope(),
    _ours_without_mask(),
    _ours_without_sums(),
    _python(),
    *_NUMPY,
    _SKLEARN,
    _numexpr(),
    _numba("cpu"),
    _numba("parallel"),
    _loop("fastrelu in @njit", "fastrelu", True),
    _loop("formula in @njit", "peer", False),
    _torch(),
    _torch_prelu(),
    _JAX,
    _c("plain"),
    _c("stream"),
    *_COPIES,
)


def available(providers: Iterable[Provider] = PROVIDERS) -> tuple[list[Provider], dict[str, str]]:
    """Return the providers that can run here, and the others with the reason."""
    present: list[Provider] = []
    left_out: dict[str, str] = {}
    for provider in providers:
        reason = provider.left_out()
        if reason is None:
            present.append(provider)
        else:
            left_out[provider.name] = reason
    return present, left_out
