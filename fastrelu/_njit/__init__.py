"""The public functions inside users' compiled code: what Numba types and compiles for ``fastrelu.relu(x)``.

Numba calls `init` through the ``numba_extensions`` entry point before it compiles anything, so that importing
fastrelu need not import Numba. The mathematics is that of `_formulas`, compiled for the types of each call; the
types are those that NumPy finds for the ufunc. What is here is binding, checking, and the loops over arrays.

`numba.extending.overload` would not do: it can neither refuse a positional ``out``, as Python does, nor say in an
error that ``where`` is unsupported. A template of its own binds each call to the public signature itself.
"""

import functools
import inspect
import sys

import numpy as np
from llvmlite import ir
from numba.core import cgutils, errors, imputils, types
from numba.core.cpu import CPUContext
from numba.core.typing import Context, signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, register_jitable
from numba.np import arrayobj
from numba.np.numpy_support import as_dtype, from_dtype

from .. import _formulas, ufuncs
from .._api import elementwise
from .._kernels.elementwise import Distinct, counted, hint
from .._operations import DATA, OPERATIONS
from .quiet import Quiet

_ACCEPTED = "a boolean, an integer, float32 or float64, or an array of these"


@functools.cache
def _signatures(name):
    """Return the signature that a call must fit, and the one by which Numba puts its arguments in order."""
    public = inspect.signature(getattr(elementwise, name))
    named = [p for p in public.parameters.values() if p.kind is not p.VAR_KEYWORD]
    # Numba's own folding of keyword-only parameters takes positional arguments for them
    flat = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in named]
    return public, inspect.Signature(flat)


def _is_none(kind):
    return isinstance(kind, types.NoneType) or (isinstance(kind, types.Omitted) and kind.value is None)


def _bind(name, args, kws):
    """Return the type of each parameter of a call, in order, defaults included; refuse what Python would."""
    public, flat = _signatures(name)
    try:
        given = public.bind(*args, **dict(kws)).arguments
    except TypeError as e:
        raise errors.TypingError(f"{name}() {e}") from None
    unsupported = list(given.pop("ufunc_kwargs", {}))
    if name.endswith("_") and "out" in unsupported:
        raise errors.TypingError(f"{name}() got an unexpected keyword argument 'out': it writes to its first argument")
    if unsupported:
        raise errors.TypingError(f"{name}: {unsupported[0]}= is not supported in compiled code")
    if not _is_none(given.get("target", types.none)):
        raise errors.TypingError(
            f"{name}: target= is not supported in compiled code, which runs where its caller runs; leave it out"
        )
    kinds = {}
    for key, parameter in flat.parameters.items():
        kind = given.get(key)
        if kind is None:
            kind = types.none if parameter.default is None else types.float64
        kinds[key] = types.none if _is_none(kind) else types.unliteral(kind)
    return kinds


def _check(name, argument, kind):
    """Refuse what is neither a number nor an array that the contract knows."""
    element = kind.dtype if isinstance(kind, types.Array) else kind
    if element == types.float16:
        raise errors.TypingError(
            f"{name}: {argument} is {kind}, and compiled code has no float16, because Numba has none on the CPU; "
            "convert to float32, or call fastrelu outside compiled code"
        )
    if not isinstance(element, (types.Boolean, types.Integer, types.Float)):
        raise errors.TypingError(f"{name}: {argument} is {kind}; accepted is {_ACCEPTED}")


def _operands(name, bound):
    """Return which parameter each operand of the operation comes from: ``at_zero=None`` means the slope."""
    _, flat = _signatures(name)
    return {
        key: "negative_slope" if flat.parameters[key].default is None and _is_none(bound[key]) else key
        for key in OPERATIONS[name.removesuffix("_")]
    }


def _computed_type(name, kinds):
    """Return the type that an operation computes in, by NumPy's rules.

    Numba has one type for ``float`` and ``numpy.float64``. So a scalar parameter, and scalar data next to an array
    of data, count as Python numbers, which leave the type of the array alone.
    """
    data = [kinds[key] for key in kinds if key in DATA]
    weak_data = any(isinstance(kind, types.Array) for kind in data)
    asked = []
    for key, kind in kinds.items():
        if isinstance(kind, types.Array):
            asked.append(as_dtype(kind.dtype))
        elif key in DATA and (not weak_data or kind == types.boolean):
            asked.append(as_dtype(kind))
        else:
            asked.append(int if key in DATA and isinstance(kind, types.Integer) else float)
    operation = name.removesuffix("_")
    try:
        dtype = getattr(ufuncs, operation).resolve_dtypes((*asked, None))[-1]
    except TypeError as e:
        raise errors.TypingError(f"{name}: {e}") from None
    if dtype == np.float16:
        raise errors.TypingError(
            f"{name}: NumPy promotes {' and '.join(map(str, kinds.values()))} to float16, and compiled code has no "
            "float16, because Numba has none on the CPU; convert one of them to float32"
        )
    return from_dtype(dtype)


def _plan(name, bound):
    """Return the type of the result, the type to compute in, and the type of `out` or None, for a bound call."""
    kinds = {key: bound[source] for key, source in _operands(name, bound).items()}
    for key, kind in kinds.items():
        _check(name, key, kind)
    if name.endswith("_"):
        where = next(iter(kinds))
        out = kinds[where]
        if not isinstance(out, types.Array):
            raise errors.TypingError(f"{name} works in place and needs an array, not {out}")
    else:
        where, out = "out", None if _is_none(bound["out"]) else bound["out"]
    computed = _computed_type(name, kinds)
    if out is None:
        arrays = [kind for kind in kinds.values() if isinstance(kind, types.Array)]
        ndim = max((kind.ndim for kind in arrays), default=0)
        if ndim == 0:
            return computed, computed, None  # NumPy, too, gives a scalar for arrays without dimensions
        fortran = ndim > 1 and all(kind.layout == "F" and kind.ndim == ndim for kind in arrays)
        return types.Array(computed, ndim, "F" if fortran else "C"), computed, None
    if not isinstance(out, types.Array):
        raise errors.TypingError(f"{name}: {where} is {out}; accepted is an array")
    _check(name, where, out)
    if not out.mutable:
        raise errors.TypingError(f"{name}: {where} is read-only")
    if not np.can_cast(as_dtype(computed), as_dtype(out.dtype), "same_kind"):
        raise errors.TypingError(f"{name}: {where} is {out}, which cannot hold the result, of type {computed}")
    return out, computed, out


# --- Loops over arrays ---------------------------------------------------------------------------------------------
# Array operands become views that all have the shape of the output: any strides, zero where an operand broadcasts.
# The views own nothing; their arrays are arguments of the compiled function, which outlive it.


def _view_type(kind, ndim):
    return types.Array(kind.dtype, ndim, "A", aligned=kind.aligned)


def _unpack(context, builder, kinds, values):
    """Return (type, value) of each operand, where the value of an array is its structure."""
    parts = cgutils.unpack_tuple(builder, values, len(kinds))
    return [
        (kind, arrayobj.make_array(kind)(context, builder, part) if isinstance(kind, types.Array) else part)
        for kind, part in zip(kinds, parts)
    ]


def _all(builder, conditions):
    return functools.reduce(builder.and_, conditions, ir.Constant(ir.IntType(1), 1))


@intrinsic
def _fits(typingctx, operands, out):
    """Say whether all operands broadcast to the shape of `out`."""

    def codegen(context, builder, sig, args):
        target = arrayobj.make_array(out)(context, builder, args[1])
        shape = cgutils.unpack_tuple(builder, target.shape, out.ndim)
        conditions = []
        for kind, value in _unpack(context, builder, operands, args[0]):
            if not isinstance(kind, types.Array):
                continue
            if kind.ndim > out.ndim:
                return context.get_constant(types.boolean, False)
            have = cgutils.unpack_tuple(builder, value.shape, kind.ndim)
            for length, wanted in zip(have, shape[out.ndim - kind.ndim :]):
                one = builder.icmp_signed("==", length, length.type(1))
                conditions.append(builder.or_(one, builder.icmp_signed("==", length, wanted)))
        return _all(builder, conditions)

    return types.boolean(operands, out), codegen


def _make_view(context, builder, kind, value, ndim, shape):
    """Return a view of an array that broadcasts to a shape."""
    view_type = _view_type(kind, ndim)
    view = arrayobj.make_array(view_type)(context, builder)
    strides = []
    have = zip(
        cgutils.unpack_tuple(builder, value.shape, kind.ndim), cgutils.unpack_tuple(builder, value.strides, kind.ndim)
    )
    for wanted, (length, stride) in zip(shape[ndim - kind.ndim :], have):
        strides.append(builder.select(builder.icmp_signed("==", length, wanted), stride, stride.type(0)))
    strides = [context.get_constant(types.intp, 0)] * (ndim - kind.ndim) + strides
    arrayobj.populate_array(
        view, data=value.data, shape=shape, strides=strides, itemsize=value.itemsize, meminfo=None, parent=None
    )
    return view_type, view


@intrinsic
def _views(typingctx, operands, out):
    """Return the operands with each array as a view of the shape of `out`; scalars stay."""
    kinds = [_view_type(kind, out.ndim) if isinstance(kind, types.Array) else kind for kind in operands]
    result = types.BaseTuple.from_types(kinds)

    def codegen(context, builder, sig, args):
        target = arrayobj.make_array(out)(context, builder, args[1])
        shape = cgutils.unpack_tuple(builder, target.shape, out.ndim)
        values = [
            _make_view(context, builder, kind, value, out.ndim, shape)[1]._getvalue()
            if isinstance(kind, types.Array)
            else value
            for kind, value in _unpack(context, builder, operands, args[0])
        ]
        return context.make_tuple(builder, result, values)

    return result(operands, out), codegen


def _extent(context, builder, kind, value):
    """Return the first address of an array and the one after its last."""
    low = high = builder.ptrtoint(value.data, value.itemsize.type)
    zero = low.type(0)
    shape = cgutils.unpack_tuple(builder, value.shape, kind.ndim)
    for length, stride in zip(shape, cgutils.unpack_tuple(builder, value.strides, kind.ndim)):
        way = builder.mul(builder.sub(length, length.type(1)), stride)
        backward = builder.icmp_signed("<", way, zero)
        low = builder.add(low, builder.select(backward, way, zero))
        high = builder.add(high, builder.select(backward, zero, way))
    return low, builder.add(high, value.itemsize)


@intrinsic
def _overlap(typingctx, views, out):
    """Say whether writing `out` in order could change an operand before it is read."""

    def codegen(context, builder, sig, args):
        target = arrayobj.make_array(out)(context, builder, args[1])
        low, high = _extent(context, builder, out, target)
        found = context.get_constant(types.boolean, False)
        for kind, value in _unpack(context, builder, views, args[0]):
            if not isinstance(kind, types.Array):
                continue
            first, end = _extent(context, builder, kind, value)
            meet = builder.and_(
                builder.icmp_unsigned("<", low, end),
                builder.icmp_unsigned("<", first, high),
            )
            same = [
                builder.icmp_signed("==", value.itemsize, target.itemsize),
                builder.icmp_unsigned(
                    "==", builder.ptrtoint(value.data, low.type), builder.ptrtoint(target.data, low.type)
                ),
            ]
            strides = [cgutils.unpack_tuple(builder, array.strides, out.ndim) for array in (value, target)]
            same += [builder.icmp_signed("==", mine, its) for mine, its in zip(*strides)]
            found = builder.or_(found, builder.and_(meet, builder.not_(_all(builder, same))))
        return found

    return types.boolean(views, out), codegen


@functools.cache
def _broadcast(ndim):
    @intrinsic
    def shape_of(typingctx, operands):
        """Return whether the operands broadcast together, and to which shape."""
        shape_type = types.UniTuple(types.intp, ndim)
        result = types.Tuple([types.boolean, shape_type])

        def codegen(context, builder, sig, args):
            one = context.get_constant(types.intp, 1)
            shape = [one] * ndim
            conditions = []
            for kind, value in _unpack(context, builder, operands, args[0]):
                if not isinstance(kind, types.Array):
                    continue
                have = cgutils.unpack_tuple(builder, value.shape, kind.ndim)
                for axis, length in enumerate(have, ndim - kind.ndim):
                    free = builder.icmp_signed("==", shape[axis], one)
                    agree = builder.or_(
                        builder.icmp_signed("==", length, one), builder.icmp_signed("==", length, shape[axis])
                    )
                    conditions.append(builder.or_(free, agree))
                    shape[axis] = builder.select(free, length, shape[axis])
            lengths = context.make_tuple(builder, shape_type, shape)
            return context.make_tuple(builder, result, [_all(builder, conditions), lengths])

        return result(operands), codegen

    return shape_of


@intrinsic
def _view(typingctx, array):
    """Return a view of an array in the type that the loops are compiled for, whatever its layout."""
    result = _view_type(array, array.ndim)

    def codegen(context, builder, sig, args):
        value = arrayobj.make_array(array)(context, builder, args[0])
        shape = cgutils.unpack_tuple(builder, value.shape, array.ndim)
        return _make_view(context, builder, array, value, array.ndim, shape)[1]._getvalue()

    return result(array), codegen


@intrinsic
def _flat(typingctx, views, out):
    """Say whether all views lie in memory without gaps and in one same order, so that one index serves all."""

    def codegen(context, builder, sig, args):
        arrays = [(out, arrayobj.make_array(out)(context, builder, args[1]))]
        arrays += [pair for pair in _unpack(context, builder, views, args[0]) if isinstance(pair[0], types.Array)]
        answers = []
        for order in (range(out.ndim - 1, -1, -1), range(out.ndim)):
            conditions = []
            for kind, value in arrays:
                shape = cgutils.unpack_tuple(builder, value.shape, kind.ndim)
                strides = cgutils.unpack_tuple(builder, value.strides, kind.ndim)
                step = value.itemsize
                for axis in order:
                    one = builder.icmp_signed("==", shape[axis], step.type(1))
                    conditions.append(builder.or_(one, builder.icmp_signed("==", strides[axis], step)))
                    step = builder.mul(step, shape[axis])
            answers.append(_all(builder, conditions))
        return builder.or_(*answers)

    return types.boolean(views, out), codegen


def _emit_loop(context, builder, formula, computed, operands, out, n):
    """Emit ``for i in range(n): out[i] = formula(...)``, whose iterations are independent, as `_overlap` made sure.

    `out` and the operands that change are (type of an element, address of the first, step); the others are values.
    Saying that iterations are independent makes LLVM use SIMD also where the output is an input.
    """
    group = Distinct(builder.module)
    with counted(builder, n) as (index, name):

        def place(kind, address, step):
            data = context.get_data_type(kind).as_pointer()
            return builder.bitcast(builder.gep(address, [builder.mul(index, step)]), data)

        values = []
        for operand in operands:
            if isinstance(operand, tuple):
                # align=1: arrays may be unaligned, and unaligned loads cost nothing on x86 and AArch64
                raw = builder.load(place(*operand), align=1)
                raw.set_metadata("llvm.access.group", group)
                operand = _number(context, builder, operand[0], computed, raw)
            values.append(operand)
        result = context.cast(builder, _compute(context, builder, formula, computed, values), computed, out[0])
        stored = builder.store(context.data_model_manager[out[0]].as_data(builder, result), place(*out), align=1)
        stored.set_metadata("llvm.access.group", group)
        name.operands += (hint(builder.module, "parallel_accesses", group),)


def _number(context, builder, kind, computed, raw):
    """Return an element, as it lies in memory, in the type to compute in."""
    value = context.data_model_manager[kind].from_data(builder, raw)
    return context.cast(builder, value, kind, computed)


@functools.cache
def _fill(operation, computed, ndim):
    """Return a function that fills an output view from operand views."""
    parameters = [name not in DATA for name in OPERATIONS[operation]]

    def size(kind):
        return ir.Constant(ir.IntType(64), as_dtype(kind.dtype).itemsize)

    def address(builder, value):
        return builder.bitcast(value.data, ir.IntType(8).as_pointer())

    @intrinsic
    def flat(typingctx, views, out):
        """Fill where one index serves all."""

        def codegen(context, builder, sig, args):
            target = arrayobj.make_array(out)(context, builder, args[1])
            operands = [
                (kind.dtype, address(builder, value), size(kind)) if isinstance(kind, types.Array) else value
                for kind, value in _unpack(context, builder, views, args[0])
            ]
            result = (out.dtype, address(builder, target), size(out))
            _emit_loop(context, builder, operation, computed, operands, result, target.nitems)
            return context.get_dummy_value()

        return types.void(views, out), codegen

    @intrinsic
    def row(typingctx, views, out, outer):
        """Fill along the last axis, at an index into the others."""

        def codegen(context, builder, sig, args):
            target = arrayobj.make_array(out)(context, builder, args[1])
            n = cgutils.unpack_tuple(builder, target.shape, out.ndim)[-1]
            index = cgutils.unpack_tuple(builder, args[2], len(outer))

            def start(kind, value):
                """Return the type of an element, where the row begins, and its stride."""
                *strides, last = cgutils.unpack_tuple(builder, value.strides, out.ndim)
                offset = functools.reduce(builder.add, map(builder.mul, index, strides), last.type(0))
                return kind.dtype, builder.gep(address(builder, value), [offset]), last

            unpacked = _unpack(context, builder, views, args[0])
            operands = [start(kind, value) if isinstance(kind, types.Array) else value for kind, value in unpacked]
            result = start(out, target)

            def loop(operands, result):
                _emit_loop(context, builder, operation, computed, operands, result, n)

            def fixed(kind, operand):
                """Return an operand with the size of an element as its step: a constant, so that LLVM sees SIMD."""
                return (*operand[:2], size(kind)) if isinstance(kind, types.Array) else operand

            def dense(triples):
                return _all(builder, [builder.icmp_signed("==", step, size(kind)) for kind, (_, _, step) in triples])

            def number(k, pair, operand):
                """Return a parameter as the number that it is all along the row; other operands as `fixed` does."""
                kind = pair[0]
                if not parameters[k] or not isinstance(kind, types.Array):
                    return fixed(kind, operand)
                pointer = context.get_data_type(kind.dtype).as_pointer()
                raw = builder.load(builder.bitcast(operand[1], pointer), align=1)
                return _number(context, builder, kind.dtype, computed, raw)

            arrays = [(k, kind) for k, (kind, _) in enumerate(unpacked) if isinstance(kind, types.Array)]
            data = [(out, result)] + [(kind, operands[k]) for k, kind in arrays if not parameters[k]]
            others = [(kind, operands[k]) for k, kind in arrays if parameters[k]]
            with builder.if_else(builder.and_(dense(data), dense(others))) as (simd, rest):
                with simd:
                    loop([fixed(kind, operand) for (kind, _), operand in zip(unpacked, operands)], fixed(out, result))
                with rest:
                    # A slope per row is one number along it
                    still = [builder.icmp_signed("==", step, step.type(0)) for _, (_, _, step) in others]
                    some = builder.icmp_signed(">", n, n.type(0))
                    with builder.if_else(_all(builder, [dense(data), some, *still])) as (one, each):
                        with one:
                            loop(
                                [number(k, *pair) for k, pair in enumerate(zip(unpacked, operands))], fixed(out, result)
                            )
                        with each:
                            loop(operands, result)
            return context.get_dummy_value()

        return types.void(views, out, outer), codegen

    def fill_0d(views, out):
        flat(views, out)

    def fill_1d(views, out):
        if _flat(views, out):
            flat(views, out)
        else:
            row(views, out, ())

    def fill(views, out):
        if _flat(views, out):
            flat(views, out)
        else:
            for outer in np.ndindex(out.shape[:-1]):
                row(views, out, outer)

    return register_jitable((fill_0d, fill_1d, fill)[min(ndim, 2)])


def _compute(context, builder, formula, computed, operands, result=None):
    """Call a formula on values of the type that it computes in, which its result has too if nothing else is said."""
    if isinstance(computed, types.Float) and isinstance(context, CPUContext):
        computed = Quiet(computed)
    sig = signature(result or computed, *[computed] * len(operands))
    return context.compile_internal(builder, getattr(_formulas, formula).__wrapped__, sig, operands)


@functools.cache
def _into(operation, computed, ndim):
    """Return a function that writes to an output that exists, which may overlap the operands in any way."""
    fill = _fill(operation, computed, ndim)

    def into(operands, out):
        if not _fits(operands, out):
            raise ValueError("fastrelu: operands could not be broadcast to the shape of the output")
        views = _views(operands, out)
        if _overlap(views, out):
            copy = np.empty(out.shape, out.dtype)
            fill(views, _view(copy))
            for index in np.ndindex(out.shape):
                out[index] = copy[index]
        else:
            fill(views, _view(out))
        return out

    return into


@functools.cache
def _new(operation, computed, ndim, fortran):
    """Return a function that makes an array and fills it."""
    fill = _fill(operation, computed, ndim)
    shape_of = _broadcast(ndim)
    dtype = as_dtype(computed)

    def new(operands):
        fine, shape = shape_of(operands)
        if not fine:
            raise ValueError("fastrelu: operands could not be broadcast together")
        out = np.empty(shape, dtype)
        fill(_views(operands, out), _view(out))
        return out

    def new_fortran(operands):
        fine, shape = shape_of(operands)
        if not fine:
            raise ValueError("fastrelu: operands could not be broadcast together")
        out = np.empty(shape[::-1], dtype).T
        fill(_views(operands, out), _view(out))
        return out

    return new_fortran if fortran else new


def _lower(name, context, builder, sig, args):
    """Emit a call of a public function, on operands that Numba has put in the order of its signature."""
    operation = name.removesuffix("_")
    names = list(_signatures(name)[1].parameters)
    bound, values = dict(zip(names, sig.args)), dict(zip(names, args))
    _, computed, out = _plan(name, bound)
    kinds, operands = [], []
    for source in _operands(name, bound).values():
        kind, value = bound[source], values[source]
        if isinstance(kind, types.Array) and kind.ndim == 0 and not isinstance(sig.return_type, types.Array):
            array = arrayobj.make_array(kind)(context, builder, value)
            kind, value = kind.dtype, arrayobj.load_item(context, builder, kind, array.data)
        if not isinstance(kind, types.Array):
            kind, value = computed, context.cast(builder, value, kind, computed)
        kinds.append(kind)
        operands.append(value)
    if not isinstance(sig.return_type, types.Array):
        return _compute(context, builder, operation, computed, operands)
    group = types.BaseTuple.from_types(kinds)
    packed = context.make_tuple(builder, group, operands)
    result = sig.return_type
    if out is None:
        new = _new(operation, computed, result.ndim, result.layout == "F" and result.ndim > 1)
        made = context.compile_internal(builder, new, signature(result, group), [packed])
    else:
        first = "out" if "out" in bound else names[0]
        into = _into(operation, computed, out.ndim)
        made = context.compile_internal(builder, into, signature(result, group, out), [packed, values[first]])
    return imputils.impl_ret_new_ref(context, builder, result, made)


def _template(name):
    class PublicFunction(AbstractTemplate):
        key = getattr(elementwise, name)

        def generic(self, args, kws):
            bound = _bind(name, args, kws)
            result, _, _ = _plan(name, bound)
            if not isinstance(self.context, Context) and any(isinstance(kind, types.Array) for kind in bound.values()):
                raise errors.TypingError(f"{name}: in a CUDA kernel each thread gives it numbers, as x[i], not arrays")
            return signature(result, *bound.values()).replace(pysig=_signatures(name)[1])

    PublicFunction.__name__ = PublicFunction.__qualname__ = name
    return PublicFunction


def _register(name):
    public = getattr(elementwise, name)
    infer_global(public, types.Function(_template(name)))
    lower_builtin(public, types.VarArg(types.Any))(functools.partial(_lower, name))


@functools.cache
def init() -> None:
    """Tell Numba about the public functions; called by Numba itself, and harmless when called again."""
    for operation in OPERATIONS:
        _register(operation)
        _register(operation + "_")
    from . import bitmask  # noqa: F401  (registers its functions)

    if "numba.cuda" in sys.modules:
        # imports what numba-cuda itself would beside NumPy 2.5 fail to, before a kernel of the user needs it
        from .._cuda import numba_cuda  # noqa: F401
