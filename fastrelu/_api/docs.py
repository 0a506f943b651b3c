"""Docstrings: what several functions say is written here once, and each function says what holds for it alone.

A docstring in the source has a summary, notes and examples, and under Parameters or Returns what is peculiar to the
function. `whole` adds the rest: an entry for each other parameter of the signature, what is returned, and what raises.
A twin takes over all but the summary and the examples from its function, and may add to its notes.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

from .._operations import FLOATS, FUNCTIONS, ROWS, Operation

_TITLE = re.compile(r"^(\w[\w ]+)\n---+\n", re.M)
_ORDER = ("Parameters", "Returns", "Raises", "See Also", "Notes", "Examples")


def _entries(section: str) -> dict[str, str]:
    """Return the entries of a section by the names, or the types, that they begin with."""
    return {re.split(" :|\n", each)[0].strip("*"): each for each in re.split(r"\n(?! )", section)}


# Words in braces are those of `_words`.
PARAMETERS = _entries("""\
x : array_like
    {x}
grad : array_like
    Gradient with respect to the output of the forward pass, in any layout.
    {types}{libraries}
mask : ndarray
    The mask of the forward pass: one-dimensional, uint8, of ``ceil(grad.size / 8)`` bytes. Bits beyond the last
    element are ignored.
counts : ndarray
    int64, with one entry for each unit along `axis`: of shape ``(x.shape[axis],)``, or ``()`` with ``axis=None``.
    The counts of this call are added to it. It may share no memory with the others.
negative_slope : array_like, optional
    The slope of the negative part: any value, negative, above 1 or not finite included. It {broadcasts}
    `{first}`, as a slope per channel does. A Python number leaves the type of `{first}` alone; a NumPy scalar or
    array takes part in promotion.
at_zero : array_like, optional
    The derivative at zero, where there is none; {at_zero}.
axis : int or None, optional
    The axis along which the units lie, each with a {sum} of its own; None is for one {sum} for all elements.
    An axis that `{first}` does not have is a `numpy.exceptions.AxisError`.
out : ndarray, optional
    Where to put the result, an array of its shape.
    {out}
slope_out : ndarray, optional
    Where to put the gradient of the slope, an array of its shape.
    {sums}
mask_out : ndarray, optional
    Where to put the mask: one-dimensional, uint8, of ``ceil(x.size / 8)`` bytes, apart from `x` and `out`.
target : {None, "serial", "parallel", "cuda"}, optional
    None chooses by where the data is and how large it is. A named target runs there or raises.
**ufunc_kwargs
    ``where``, ``dtype``, ``casting``, ``order``, ``subok`` and ``signature``, as for any `numpy.ufunc`.""")
OVERWRITTEN = """\
{first} : ndarray
    What is overwritten: an array, no list or scalar, of the result's shape and of a type to which the result casts.
    {types}"""

UFUNC, PASS, TWIN = (
    "ndarray or scalar\n    {array} of the broadcast shape (a scalar for scalars), or `out`.",
    "ndarray or scalar\n    {same}",
    "ndarray\n    The same object as `{first}`.",
)
WITH_MASK = """\
y : ndarray or scalar
    {same}
mask : ndarray
    ``numpy.packbits(~(x <= 0).ravel(), bitorder="little")`` of the input in any layout, or `mask_out`."""
WITH_SLOPE_GRAD = """\
grad_x : ndarray or scalar
    {same}
grad_slope : ndarray or scalar
    What ``leaky_relu_slope_grad(grad, x, axis=axis)`` returns, or `slope_out`."""

RAISES = """\
TypeError
    An argument is complex, longdouble, object, string, datetime or structured, or of another type than is said
    above, or a result does not cast to the array where it goes.
ValueError
    `target` is unknown, shapes or lengths do not agree, or an array where a result goes is read-only, or shares
    memory that it may not. Nothing is written before an error.
RuntimeError
    The named target is not available here; the message says why."""


def _words(row: Operation) -> dict[str, str]:
    counts, backward = row.sums == "counts", row.names[0] == "grad"
    types = "Floats, bfloat16 too, keep their type; bool and integers become float64."
    if row.typecodes != FLOATS:
        types = "Accepted are bool, any integer type, bfloat16, float16, float32 and float64."
    libraries, broadcasts = "", "broadcasts against"
    if not row.is_ufunc:
        dask, broadcasts = " Dask," if row.has_bitmask else "", "broadcasts to the shape of"
        libraries = (
            f"\n    Arrays of NumPy, PyTorch, JAX,{dask} CuPy and Numba will do; masked ones and those of pandas not."
        )
    sums = "It is of int64" if counts else "In one of float64, sums of float16 and float32 arrive unrounded"
    sums = f"It may share no memory with the others. {sums}."
    given = [*ROWS[row.like].data, *(operand.name for operand in row.parameters)]
    follows = [f"None means `{operand.follows}`, as in PyTorch" for operand in row.operands if operand.follows]
    beside = f"Input of the forward pass; it {broadcasts} `grad`."
    return {
        "first": row.names[0],
        "types": types,
        "libraries": libraries,
        "x": beside if backward else f"Input of any shape and layout.\n    {types}{libraries}",
        "broadcasts": broadcasts,
        "at_zero": "".join(follows) or "every number in [0, 1] is a subgradient",
        "sum": "count" if counts else "slope",
        "sums": sums,
        "out": "It may be an input, or overlap one in any way." if row.writes_result else sums,
        "array": "The gradient with respect to `x`: an array" if backward else "An array",
        "same": f"What ``{row.like}({', '.join(given)})`` returns, bit for bit, or `out`.",
    }


#: The sections of the functions so far, for their twins.
_sections: dict[str, dict[str, str]] = {}


def whole(function: Callable[..., Any]) -> str | None:
    """Return the docstring of a public function with what is said here; None where Python dropped it (``-OO``)."""
    if function.__doc__ is None:
        return None
    row = FUNCTIONS[function.__name__]
    summary, *parts = _TITLE.split(inspect.cleandoc(function.__doc__))
    own = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    returns = WITH_MASK if row.writes_bitmask else WITH_SLOPE_GRAD if row.sums == "slope_grad" else PASS
    sections = {"Returns": UFUNC if row.is_ufunc else returns, "Raises": RAISES, **own}
    entries = PARAMETERS | _entries(own.get("Parameters", ""))
    if function.__name__ != row.name:
        theirs = _sections[row.name]
        _, *others = _entries(theirs["Returns"]).values()
        notes = "\n\n".join([theirs["Notes"], *filter(None, [own.get("Notes")])])
        sections = {**theirs, **own, "Returns": "\n".join(others) or TWIN, "Notes": notes}
        entries = {**_entries(theirs["Parameters"]), row.names[0]: OVERWRITTEN}
    sections["Parameters"] = "\n".join(entries[name] for name in inspect.signature(function).parameters)
    _sections[function.__name__] = sections
    texts = [f"{title}\n{'-' * len(title)}\n{sections[title]}" for title in _ORDER if title in sections]
    words = _words(row)
    return re.sub(r"\{(\w+)\}", lambda found: words[found[1]], "\n\n".join([summary.strip(), *texts]))
