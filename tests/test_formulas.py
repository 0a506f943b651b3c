"""The formulas as the compiler gets them: the bytecode that Python makes of them differs between its versions."""

import dis
import json
import platform
import re

import pytest

from fastrelu import _formulas
from fastrelu._operations import UFUNCS

from .helpers import OPERATIONS, run_python
from .test_processors import SETTINGS

FORMULAS = [name for name, value in vars(_formulas).items() if hasattr(value, "__wrapped__")]
_X86 = platform.machine().lower() in ("x86_64", "amd64")


def test_there_are_formulas():
    assert {"relu", "leaky_relu_backward", "slope_term"} <= set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_each_returns_once(name):
    """Of two returns, LLVM makes branches on the CPU, and NVIDIA's compiler comparisons that lose the sign of zero."""
    instructions = dis.get_instructions(getattr(_formulas, name).__wrapped__)
    assert sum(each.opname.startswith("RETURN") for each in instructions) == 1


#: Processors to compile for, on any x86-64 one, as nothing runs: Numba's names for them, and the register that a whole
#: vector fills. LLVM's own choice for this AVX-512 processor would be vectors of 32 bytes.
TARGETS = {
    "AVX2": (*SETTINGS["AVX2"][:2], "ymm"),
    "AVX-512": (SETTINGS["AVX-512"][0], SETTINGS["AVX-512"][1] + ",-prefer-256-bit", "zmm"),
}
#: How many comparisons a vector of results takes, and as many selections: the same on Python 3.11, 3.12 and 3.13, for
#: AVX2 and AVX-512, by LLVM 14 and 20. LLVM makes loops of their own of `relu_backward` for an `at_zero` of 0.
COMPARISONS = {
    "relu": {1},
    "leaky_relu": {1},
    "relu_grad": {3},
    "leaky_relu_grad": {3},
    "relu_backward": {1, 2, 3},
    "leaky_relu_backward": {2},
}

COMPILE = """
import json, sys
import numpy as np
from fastrelu._runtime import code_cache, compiler
from fastrelu._operations import UFUNCS

code_cache.load, code_cache.save = lambda *args: None, lambda *args: None
kernels = {
    f"{name} {dtype}": compiler.kernel(name, np.dtype(dtype)).library.get_asm_str()
    for name in UFUNCS
    for dtype in ("float32", "float64")
}
print(json.dumps(kernels))
"""


@pytest.fixture(scope="module", params=TARGETS)
def kernels(request):
    """Return the register of a processor's whole vectors, and the assembly of every kernel for it."""
    if not _X86:
        pytest.skip("x86-64 assembly")
    cpu, features, register = TARGETS[request.param]
    result = run_python(COMPILE, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    return register, json.loads(result.stdout)


def innermost_loops(assembly):
    """Yield the instructions of each loop that has no other one in it."""
    labels, instructions, loops = {}, [], []
    for line in assembly.splitlines():
        line = line.partition("#")[0].strip()
        if line.endswith(":"):
            labels[line[:-1]] = len(instructions)
        elif line and not line.startswith("."):
            instructions.append(line)
    for end, line in enumerate(instructions):
        start = labels.get(line.split()[-1], end + 1) if line.startswith("j") else end + 1
        if start <= end:
            loops.append((start, end))
    for start, end in loops:
        if not any(start <= other[0] and other[1] <= end for other in loops if other != (start, end)):
            yield instructions[start : end + 1]


def whole_vector_loops(assembly, register):
    """Yield the innermost loops that store whole vectors."""
    for loop in innermost_loops(assembly):
        if any(re.match(rf"vmov\S+\s+%{register}\d+, .*\(", line) for line in loop):
            yield loop


def count(pattern, loop):
    return sum(bool(re.match(pattern, line)) for line in loop)


def jumps(loop):
    """Return the conditional jumps of a loop, but for those that ask each time the same of values from outside it.

    `relu_backward` asks so whether `at_zero` is 0 where LLVM selects by a jump, as it does for AVX2.
    """
    scalars = r"v?u?comis[sd]\s"
    written = {
        register
        for line in loop
        if not re.match(scalars, line)
        for register in re.findall(r"[xyz]mm(\d+)(?: \{.*)?$", line)
    }
    found, asked = [], ""
    for turn in range(2):  # what is asked at the end may be answered at the beginning
        for line in loop:
            if re.match(
                rf"{scalars}|(add|sub|inc|dec|neg|cmp|test|and|or|xor|sh|sa|bt|v?ptest|vtest|k(or)?test)", line
            ):
                asked = line
            same = re.match(scalars, asked) and written.isdisjoint(re.findall(r"[xyz]mm(\d+)", asked))
            if turn and re.match("j(?!mp)", line) and not same:
                found.append(line)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_vector_loops_compare_and_select(name, dtype, kernels):
    """No branch but the loop's own, no detour, and no comparison too many: conditions became masks of whole vectors.

    As conditional expressions, in Python 3.12 and later, the derivatives read `grad` and the parameters by masked
    loads (`vmaskmov`), moved masks between registers, and jumped in the middle of the loop.
    """
    register, assembly = kernels
    loops = list(whole_vector_loops(assembly[f"{name} {dtype}"], register))
    # With plain and with streaming stores, of scalar parameters and of arrays
    assert len(loops) >= (4 if UFUNCS[name].parameters else 2)
    for loop in loops:
        text = "\n".join(loop)
        stores = count(rf"vmov\S+\s+%{register}\d+, .*\(", loop)
        comparisons = count("vcmp", loop)
        selections = count(r"vp?(blend|and)|(?!vcmp).*\{%k", loop)
        maxima = count("vmax", loop)
        assert len(jumps(loop)) == 1, text
        assert not count(r"vmaskmov|v?movmsk|vptest|vtestp|vpextr|vmov[dq]\s", loop), text
        if name in COMPARISONS:
            assert not count("k[a-z]", loop), text
            assert (comparisons + maxima) / stores in COMPARISONS[name], text
            assert selections == comparisons, text
            assert not maxima or name == "relu", text
