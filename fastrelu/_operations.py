"""The table of operations: which operands each one takes, in order, and which types it has loops for."""

#: ``grad`` and ``x`` are data; the other operands are parameters, usually scalars.
OPERATIONS = {
    "relu": ("x",),
    "leaky_relu": ("x", "negative_slope"),
    "relu_grad": ("x", "at_zero"),
    "leaky_relu_grad": ("x", "negative_slope", "at_zero"),
    "relu_backward": ("grad", "x", "at_zero"),
    "leaky_relu_backward": ("grad", "x", "negative_slope", "at_zero"),
}
DATA = ("grad", "x")

#: NumPy type characters. float16 comes first: NumPy takes the first loop that an input casts to safely.
FLOATS = "efd"
#: Both ``l`` and ``q`` are there because NumPy has a type object for each C type, also where sizes agree.
INTEGERS = "?bBhHiIlLqQ"


def typecodes(name: str) -> str:
    """Return the type characters for which an operation has a loop of its own."""
    return INTEGERS + FLOATS if name == "relu" else FLOATS
