"""The formulas as the compiler gets them: the bytecode that Python makes of them differs between its versions."""

import dis

import pytest

from fastrelu import _formulas

FORMULAS = [name for name, value in vars(_formulas).items() if hasattr(value, "__wrapped__")]


def test_there_are_formulas():
    assert {"relu", "leaky_relu_backward", "slope_term"} <= set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_each_returns_once(name):
    """Of two returns, LLVM makes branches on the CPU, and NVIDIA's compiler comparisons that lose the sign of zero."""
    instructions = dis.get_instructions(getattr(_formulas, name).__wrapped__)
    assert sum(each.opname.startswith("RETURN") for each in instructions) == 1
