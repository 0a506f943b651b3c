"""How a kernel reads, computes and writes: a few intrinsics, each with a twin in Python for the simulator.

Addresses are plain 64-bit integers. That is what makes launches cheap (an array argument is seven values, and
Numba takes microseconds to unpack it), lets one kernel serve every library, and says nothing about overlap:
LLVM keeps loads and stores in the order in which they are written, so that a kernel may run in place.

A batch is `count` times `width` elements: `count` loads of `width` adjacent elements, each load a step away from the
one before. All loads of a batch are issued before the first of its elements is computed.

The intrinsics turn addresses into pointers of address space 1; without that, LLVM emits ``ld`` and ``st``, which ask
the hardware which kind of memory is meant, instead of ``ld.global`` and ``st.global``.
"""

import ctypes
import functools

import numpy as np
from llvmlite import ir
from numba.core.typing import signature
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from .. import _formulas
from .._kernels import bfloat16
from .numba_cuda import SIMULATED, types

#: Bytes of one vector access, the widest that every supported GPU has.
VECTOR_BYTES = 16
WORD, INT, HALF, SINGLE = ir.IntType(64), ir.IntType(32), ir.HalfType(), ir.FloatType()


def memory_dtype(code):
    """Return the dtype of a type character as it lies in memory: bfloat16, "E", as its bits."""
    return np.dtype("H" if code == "E" else code)


def compute_dtype(code):
    """Return the dtype in which an operation of a type computes: the narrow floats in float32."""
    return np.dtype("f" if code in "eE" else code)


def compute_type(code):
    """Return the same as a Numba type."""
    return from_dtype(compute_dtype(code))


def formula(name):
    """Return the one formula of an operation, as plain Python."""
    return getattr(_formulas, name).__wrapped__


# ---- LLVM IR --------------------------------------------------------------------------------------------------------


def _llvm(code):
    if code in "efd":
        return {"e": HALF, "f": SINGLE, "d": ir.DoubleType()}[code]
    return ir.IntType(8 * memory_dtype(code).itemsize)


def _convert(builder, value, source, target):
    """Convert a value as it lies in memory from one type to another, as NumPy casts do. Never float to integer."""
    if source == target:
        return value
    if source == "E":
        return _convert(builder, _to_compute(None, builder, value, "E"), "f", target)
    if target == "E":
        return _from_compute(None, builder, _convert(builder, value, source, "f"), "E")
    kind, size = np.dtype(source).kind, np.dtype(source).itemsize
    to, other = _llvm(target), np.dtype(target)
    if kind == "f":
        if other.itemsize == size:
            return value
        return builder.fpext(value, to) if other.itemsize > size else builder.fptrunc(value, to)
    if other.kind == "f":
        # NumPy goes from integers to float16 by way of float32
        first = SINGLE if target == "e" else to
        number = builder.sitofp(value, first) if kind == "i" else builder.uitofp(value, first)
        return builder.fptrunc(number, to) if target == "e" else number
    if other.itemsize == size:
        return value
    if other.itemsize < size:
        return builder.trunc(value, to)
    return builder.sext(value, to) if kind == "i" else builder.zext(value, to)


def _to_compute(context, builder, value, code):
    if code == "e":
        return builder.fpext(value, SINGLE)
    if code == "E":
        return bfloat16.to_single(context, builder, value)
    return context.data_model_manager[compute_type(code)].from_data(builder, value)


def _from_compute(context, builder, value, code):
    if code == "e":
        return builder.fptrunc(value, HALF)
    if code == "E":
        # NVIDIA's own NaN is all ones, which rounding would carry into the sign
        bits = builder.bitcast(value, INT)
        number = builder.fcmp_ordered("ord", value, value)
        bits = builder.select(number, bits, builder.and_(bits, bfloat16.UPPER))
        return bfloat16.from_single(context, builder, builder.bitcast(bits, SINGLE))
    return context.data_model_manager[compute_type(code)].as_data(builder, value)


def _in_memory(code, width):
    """Return the LLVM type of one access: bytes and halves travel in words, or LLVM would split the vector."""
    if width == 1:
        return _llvm(code)
    if memory_dtype(code).itemsize < 4:
        return ir.VectorType(INT, VECTOR_BYTES // 4)
    return ir.VectorType(_llvm(code), width)


def _unpack(builder, vector, code, width):
    """Return the elements of a vector as it came from memory."""
    kind = _llvm(code)
    if not isinstance(kind, ir.IntType) or kind.width >= 32:
        vector = builder.bitcast(vector, ir.VectorType(kind, width))
        return [builder.extract_element(vector, INT(k)) for k in range(width)]
    # Shifts, not a cast to a vector of bytes: LLVM would make that four accesses of 4 bytes
    each = 32 // kind.width
    words = [builder.extract_element(vector, INT(k // each)) for k in range(width)]
    return [builder.trunc(builder.lshr(word, INT(k % each * kind.width)), kind) for k, word in enumerate(words)]


def _pack(builder, lanes, code, width):
    """Return elements as one vector, as it goes to memory."""
    kind = _llvm(code)
    if not isinstance(kind, ir.IntType) or kind.width >= 32:
        item = ir.Constant(ir.VectorType(kind, width), ir.Undefined)
        for k, value in enumerate(lanes):
            item = builder.insert_element(item, value, INT(k))
        return builder.bitcast(item, _in_memory(code, width))
    item, each = ir.Constant(_in_memory(code, width), ir.Undefined), 32 // kind.width
    for k in range(width // each):
        word = INT(0)
        for j, value in enumerate(lanes[k * each : (k + 1) * each]):
            word = builder.or_(word, builder.shl(builder.zext(value, INT), INT(j * kind.width)))
        item = builder.insert_element(item, word, INT(k))
    return item


def _place(builder, address, code, width):
    return builder.inttoptr(address, ir.PointerType(_in_memory(code, width), 1))


def _each(builder, value, kind, k):
    """Return item k of a tuple, or a number that stands for all items."""
    return builder.extract_value(value, k) if isinstance(kind, types.BaseTuple) else value


def _tuple(context, builder, kind, values):
    result = ir.Constant(context.get_value_type(kind), ir.Undefined)
    for k, value in enumerate(values):
        result = builder.insert_value(result, value, k)
    return result


def _read(context, builder, codes, loop, lanes, addresses):
    """Load from ``addresses[j][k]`` of each operand, all of them first; return the operands' rows of values.

    `lanes` is how many adjacent elements each operand has at an address; one that has fewer repeats its own.
    """
    loaded = []
    for code, width, places in zip(codes, lanes, addresses, strict=True):
        align = width * memory_dtype(code).itemsize
        loaded.append([builder.load(_place(builder, place, code, width), align=align) for place in places])
    rows = []
    for code, width, batches in zip(codes, lanes, loaded, strict=True):
        values = []
        for batch in batches:
            found = [batch] if width == 1 else _unpack(builder, batch, code, width)
            found = [_to_compute(context, builder, _convert(builder, each, code, loop), loop) for each in found]
            values += found * (max(lanes) // width)
        rows.append(_tuple(context, builder, types.UniTuple(compute_type(loop), len(values)), values))
    return rows


def _write(context, builder, code, loop, width, addresses, values):
    """Store a row of values, `width` adjacent ones at each address."""
    for k, address in enumerate(addresses):
        lanes = []
        for lane in range(width):
            value = builder.extract_value(values, k * width + lane)
            lanes.append(_convert(builder, _from_compute(context, builder, value, loop), loop, code))
        item = lanes[0] if width == 1 else _pack(builder, lanes, code, width)
        builder.store(item, _place(builder, address, code, width), align=width * memory_dtype(code).itemsize)


def _rows_type(codes, loop, values):
    return types.UniTuple(types.UniTuple(compute_type(loop), values), len(codes))


def _load_compiled(codes, loop, lanes, count):
    @intrinsic
    def load(typing_context, addresses, offsets, steps):
        result = _rows_type(codes, loop, max(lanes, default=1) * count)

        def generate(context, builder, signature, arguments):
            kinds, places = signature.args, []
            for j in range(len(codes)):
                start = builder.add(builder.extract_value(arguments[0], j), _each(builder, arguments[1], kinds[1], j))
                step = _each(builder, arguments[2], kinds[2], j)
                places.append([builder.add(start, builder.mul(step, WORD(k))) for k in range(count)])
            return _tuple(context, builder, result, _read(context, builder, codes, loop, lanes, places))

        return result(addresses, offsets, steps), generate

    return load


def _gather_compiled(codes, loop, lanes, count):
    @intrinsic
    def gather(typing_context, addresses, places):
        result = _rows_type(codes, loop, max(lanes) * count)

        def generate(context, builder, signature, arguments):
            starts, places = arguments
            spots = [
                [
                    builder.add(builder.extract_value(starts, j), builder.extract_value(places, (k, j)))
                    for k in range(count)
                ]
                for j in range(len(codes))
            ]
            return _tuple(context, builder, result, _read(context, builder, codes, loop, lanes, spots))

        return result(addresses, places), generate

    return gather


def _store_compiled(code, loop, width, count):
    @intrinsic
    def store(typing_context, address, offset, step, values):
        def generate(context, builder, signature, arguments):
            start, offset, step, values = arguments
            start = builder.add(start, offset)
            places = [builder.add(start, builder.mul(step, WORD(k))) for k in range(count)]
            _write(context, builder, code, loop, width, places, values)
            return context.get_dummy_value()

        return types.void(address, offset, step, values), generate

    return store


def _scatter_compiled(code, loop, width, count):
    @intrinsic
    def scatter(typing_context, address, places, values):
        last = len(places.dtype) - 1

        def generate(context, builder, signature, arguments):
            start, places, values = arguments
            spots = [builder.add(start, builder.extract_value(places, (k, last))) for k in range(count)]
            _write(context, builder, code, loop, width, spots, values)
            return context.get_dummy_value()

        return types.void(address, places, values), generate

    return scatter


def _apply_compiled(name, loop, order, lanes):
    @intrinsic
    def apply(typing_context, loaded, uniforms, scalars):
        number = compute_type(loop)
        row = types.UniTuple(number, lanes)
        formula_type = signature(number, *[number] * len(order))

        def generate(context, builder, signature, arguments):
            results = []
            for k in range(lanes):
                operands = []
                for source, j in order:
                    if source == "scalar":
                        operands.append(builder.extract_value(arguments[2], j))
                    else:
                        rows, lane = (arguments[0], k) if source == "array" else (arguments[1], 0)
                        operands.append(builder.extract_value(builder.extract_value(rows, j), lane))
                # the same Python function that the CPU loops compile
                results.append(context.compile_internal(builder, formula(name), formula_type, operands))
            return _tuple(context, builder, row, results)

        return row(loaded, uniforms, scalars), generate

    return apply


def two_sum(total, lost, term):
    """Return a sum with a term added, and what rounding has lost of it so far (Knuth), as on the CPU."""
    result = total + term
    taken = result - total
    return result, lost + ((total - (result - taken)) + (term - taken))


def _add_compiled(name, code, loop, order, sums):
    number, kind = compute_type(loop), compute_type(code)

    @intrinsic
    def add(typing_context, totals, lost, loaded, scalars):
        lanes = len(loaded.dtype)
        result = types.UniTuple(types.UniTuple(kind, sums), 2)

        def generate(context, builder, signature_, arguments):
            found = [[builder.extract_value(arguments[which], j) for j in range(sums)] for which in (0, 1)]

            def operand(k, source, j, wanted):
                value = builder.extract_value(arguments[3 if source == "scalar" else 2], j)
                value = value if source == "scalar" else builder.extract_value(value, k)
                return context.cast(builder, value, number, wanted)

            def compiled(function, result, kind, operands):
                types_ = signature(result, *[kind] * len(operands))
                return context.compile_internal(builder, function, types_, operands)

            def count_bits(j):
                # in 32 bits first, where adding takes one instruction
                some = INT(0)
                for k in range(j, lanes, sums):
                    bit = compiled(formula(name), types.boolean, number, [operand(k, *order[0], number)])
                    some = builder.add(some, builder.zext(bit, INT))
                return builder.add(found[0][j], builder.zext(some, WORD))

            def add_term(j, k):
                term, *more = [operand(k, *each, kind) for each in order[:2]]
                if name != "fold":
                    term, more = compiled(formula(name), kind, kind, [term, *more]), []
                if code == "q":
                    found[0][j] = builder.add(found[0][j], term)
                    return
                pair = compiled(two_sum, types.UniTuple(kind, 2), kind, [found[0][j], found[1][j], term])
                found[0][j], found[1][j] = (builder.extract_value(pair, which) for which in (0, 1))
                for each in more:  # what a launch before has lost
                    found[1][j] = builder.fadd(found[1][j], each)

            for j in range(sums):
                if name == "positive":
                    found[0][j] = count_bits(j)
                    continue
                for k in range(j, lanes, sums):
                    add_term(j, k)
            row = types.UniTuple(kind, sums)
            return _tuple(context, builder, result, [_tuple(context, builder, row, each) for each in found])

        return result(totals, lost, loaded, scalars), generate

    return add


def joined(total, lost):
    """Return a sum with what rounding has lost of it; of an infinite sum, that is NaN."""
    result = total
    if total - total == 0:
        result = total + lost
    return result


def _close_compiled(code, exact, sums):
    kind = compute_type(code)

    @intrinsic
    def close(typing_context, totals, lost, before):
        result = types.UniTuple(kind, sums)

        def generate(context, builder, signature_, arguments):
            closed = []
            for j in range(sums):
                total, rest, more = (builder.extract_value(each, j) for each in arguments)
                if exact:
                    total = context.compile_internal(builder, joined, signature(kind, kind, kind), [total, rest])
                closed.append((builder.add if code == "q" else builder.fadd)(total, more))
            return _tuple(context, builder, result, closed)

        return result(totals, lost, before), generate

    return close


def _unravel_compiled(operands, axes):
    @intrinsic
    def unravel(typing_context, index, shape, strides):
        result = types.UniTuple(types.int64, operands)

        def generate(context, builder, signature, arguments):
            index, shape, strides = arguments
            offsets = [WORD(0)] * operands
            for axis in reversed(range(axes)):
                position = index
                if axis:
                    extent = builder.extract_value(shape, axis)
                    index = builder.udiv(position, extent)
                    position = builder.sub(position, builder.mul(index, extent))
                for j in range(operands):
                    stride = builder.extract_value(builder.extract_value(strides, j), axis)
                    offsets[j] = builder.add(offsets[j], builder.mul(position, stride))
            return _tuple(context, builder, result, offsets)

        return result(index, shape, strides), generate

    return unravel


def _move_compiled(operands):
    @intrinsic
    def move(typing_context, starts, k, steps):
        result = types.UniTuple(types.int64, operands)

        def generate(context, builder, signature, arguments):
            places = []
            for j in range(operands):
                moved = builder.mul(arguments[1], builder.extract_value(arguments[2], j))
                places.append(builder.add(_each(builder, arguments[0], signature.args[0], j), moved))
            return _tuple(context, builder, result, places)

        return result(starts, k, steps), generate

    return move


def _spot_compiled(operands, axes, count):
    find, along = _unravel_compiled(operands, axes), _move_compiled(operands)

    @intrinsic
    def spots(typing_context, index, step, shape, strides, unit, unit_steps):
        place = types.UniTuple(types.int64, operands)
        result = types.UniTuple(place, count)

        def one(index, shape, strides, unit, unit_steps):
            return along(find(index, shape, strides), unit, unit_steps)

        def generate(context, builder, signature_, arguments):
            first, step, *rest = arguments
            places = []
            for k in range(count):
                index = builder.add(first, builder.mul(step, WORD(k)))
                kinds = signature(place, types.int64, shape, strides, unit, unit_steps)
                places.append(context.compile_internal(builder, one, kinds, [index, *rest]))
            return _tuple(context, builder, result, places)

        return result(index, step, shape, strides, unit, unit_steps), generate

    return spots


def _pack_bits_compiled(loop, lanes):
    @intrinsic
    def pack(typing_context, row, first):
        bit_type = signature(types.boolean, compute_type(loop))

        def generate(context, builder, signature, arguments):
            found = INT(0)
            for k in range(lanes):
                operand = builder.extract_value(arguments[0], k)
                bit = context.compile_internal(builder, formula("active"), bit_type, [operand])
                found = builder.or_(found, builder.shl(builder.zext(bit, INT), INT(k)))
            return builder.shl(builder.zext(found, WORD), arguments[1])

        return types.int64(row, first), generate

    return pack


def _unpack_bits_compiled(loop, lanes):
    @intrinsic
    def unpack(typing_context, bits, first):
        result, code = types.UniTuple(compute_type(loop), lanes), compute_dtype(loop).char

        def generate(context, builder, signature, arguments):
            found, values = builder.trunc(builder.lshr(*arguments), INT), []
            for k in range(lanes):
                bit = builder.and_(builder.lshr(found, INT(k)), INT(1))
                bit = _convert(builder, builder.trunc(bit, ir.IntType(8)), "B", code)
                values.append(_to_compute(context, builder, bit, code))
            return _tuple(context, builder, result, values)

        return result(bits, first), generate

    return unpack


# ---- Python twins ---------------------------------------------------------------------------------------------------


def _item(values, k):
    return values[k] if isinstance(values, tuple) else values


def _bytes(address, size, align):
    if address % align:
        raise AssertionError(f"an access of {align} bytes at address {address:#x} is not aligned")
    return (ctypes.c_char * size).from_address(int(address))


def _from_memory(raw, code):
    return (raw.astype(np.uint32) << 16).view(np.float32) if code == "E" else raw


def _to_memory(values, code):
    if code != "E":
        return values.astype(code)
    values = values.astype(np.float32)
    bits = np.where(np.isnan(values), values.view(np.uint32) & 0xFFFF0000, values.view(np.uint32))
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)


def _rounded(values, code):
    return _from_memory(_to_memory(values, code), code)


def _read_simulated(codes, loop, lanes, addresses):
    rows = []
    for code, width, places in zip(codes, lanes, addresses, strict=True):
        size, values = width * memory_dtype(code).itemsize, []
        for place in places:
            raw = np.frombuffer(_bytes(place, size, size), dtype=memory_dtype(code))
            with np.errstate(all="ignore"):
                found = _rounded(_from_memory(raw, code), loop).astype(compute_dtype(loop))
            values.extend(tuple(found) * (max(lanes) // width))
        rows.append(tuple(values))
    return tuple(rows)


def _write_simulated(code, loop, width, addresses, values):
    size = width * memory_dtype(code).itemsize
    for k, address in enumerate(addresses):
        with np.errstate(all="ignore"):
            lanes = np.array(values[k * width : (k + 1) * width], dtype=compute_dtype(loop))
            lanes = _to_memory(_rounded(lanes, loop), code)
        _bytes(address, size, size)[:] = lanes.tobytes()


def _load_simulated(codes, loop, lanes, count):
    def load(addresses, offsets, steps):
        starts = [addresses[j] + _item(offsets, j) for j in range(len(codes))]
        places = [[start + k * _item(steps, j) for k in range(count)] for j, start in enumerate(starts)]
        return _read_simulated(codes, loop, lanes, places)

    return load


def _gather_simulated(codes, loop, lanes, count):
    def gather(addresses, places):
        spots = [[addresses[j] + places[k][j] for k in range(count)] for j in range(len(codes))]
        return _read_simulated(codes, loop, lanes, spots)

    return gather


def _store_simulated(code, loop, width, count):
    def store(address, offset, step, values):
        _write_simulated(code, loop, width, [address + offset + k * step for k in range(count)], values)

    return store


def _scatter_simulated(code, loop, width, count):
    def scatter(address, places, values):
        _write_simulated(code, loop, width, [address + place[-1] for place in places], values)

    return scatter


def _apply_simulated(name, loop, order, lanes):
    function = formula(name)

    def apply(loaded, uniforms, scalars):
        def operand(source, j, k):
            return scalars[j] if source == "scalar" else loaded[j][k] if source == "array" else uniforms[j][0]

        with np.errstate(all="ignore"):
            return tuple(function(*(operand(source, j, k) for source, j in order)) for k in range(lanes))

    return apply


def _add_simulated(name, code, loop, order, sums):
    kind = compute_dtype(code).type

    def term_of(operands):
        if name == "fold":
            return operands[0]
        return kind(formula(name)(*(operands if name == "positive" else map(kind, operands))))

    def add(totals, lost, loaded, scalars):
        totals, lost = list(totals), list(lost)
        for k in range(len(loaded[0])):
            operands = [scalars[j] if source == "scalar" else loaded[j][k] for source, j in order[:2]]
            operands = operands[:1] if name == "positive" else operands
            j = k % sums
            totals[j], lost[j] = two_sum(totals[j], lost[j], term_of(operands))
            if name == "fold" and len(operands) > 1:
                lost[j] += operands[1]
        return tuple(totals), tuple(lost)

    return add


def _close_simulated(code, exact, sums):
    def close(totals, lost, before):
        found = zip(totals, lost, before, strict=True)
        return tuple((joined(total, rest) if exact else total) + more for total, rest, more in found)

    return close


def _unravel_simulated(operands, axes):
    def unravel(index, shape, strides):
        offsets = [0] * operands
        for axis in reversed(range(axes)):
            position = index
            if axis:
                index, position = divmod(position, shape[axis])
            for j in range(operands):
                offsets[j] += position * strides[j][axis]
        return tuple(offsets)

    return unravel


def _move_simulated(operands):
    def move(starts, k, steps):
        return tuple(_item(starts, j) + k * steps[j] for j in range(operands))

    return move


def _spot_simulated(operands, axes, count):
    find, along = _unravel_simulated(operands, axes), _move_simulated(operands)

    def spots(index, step, shape, strides, unit, unit_steps):
        return tuple(along(find(index + k * step, shape, strides), unit, unit_steps) for k in range(count))

    return spots


def _pack_bits_simulated(loop, lanes):
    function = formula("active")

    def pack(row, first):
        return sum(int(function(row[k])) << k for k in range(lanes)) << first

    return pack


def _unpack_bits_simulated(loop, lanes):
    def unpack(bits, first):
        return tuple(compute_dtype(loop).type(bits >> first + k & 1) for k in range(lanes))

    return unpack


def _choose(simulated, compiled):
    return functools.cache(simulated if SIMULATED else compiled)


#: ``loader(codes, loop, lanes, count)`` returns ``load(addresses, offsets, steps)``: a batch of each operand. `lanes`
#: are the adjacent elements of an access to each; an operand with fewer than others, which is one, is the same for all.
loader = _choose(_load_simulated, _load_compiled)
#: ``gatherer(codes, loop, lanes, count)`` returns ``gather(addresses, places)``: the same from `count` places, of which
#: each has an offset per operand.
gatherer = _choose(_gather_simulated, _gather_compiled)
#: ``storer(code, loop, width, count)`` returns ``store(address, offset, step, values)``.
storer = _choose(_store_simulated, _store_compiled)
#: ``scatterer(code, loop, width, count)`` returns ``scatter(address, places, values)``: to each place's last offset.
scatterer = _choose(_scatter_simulated, _scatter_compiled)
#: ``applier(name, loop, order, lanes)`` returns ``apply(loaded, uniforms, scalars)``: the formula, lane by lane.
applier = _choose(_apply_simulated, _apply_compiled)
#: ``adder(name, code, loop, order, sums)`` returns ``add(totals, lost, loaded, scalars)``, which gives both anew: each
#: lane adds to the sum of its place modulo `sums`, of int64 ("q") or float64 ("d"): "positive" whether the operand is
#: above zero, "slope_term" a product, "fold" a sum of an earlier launch, with what was lost as a second operand.
adder = _choose(_add_simulated, _add_compiled)
#: ``closer(code, exact, sums)`` returns ``close(totals, lost, before)``: the sums, whole if `exact`, added to others.
closer = _choose(_close_simulated, _close_compiled)
#: ``unraveler(operands, axes)`` returns ``unravel(index, shape, strides)``: where a row starts in each operand.
unraveler = _choose(_unravel_simulated, _unravel_compiled)
#: ``mover(operands)`` returns ``move(starts, k, steps)``: each operand's place, k steps on.
mover = _choose(_move_simulated, _move_compiled)
#: ``spotter(operands, axes, count)`` returns ``spots(index, step, shape, strides, unit, unit_steps)``: the places of
#: `count` elements of a unit, `step` apart.
spotter = _choose(_spot_simulated, _spot_compiled)
#: ``packer(loop, lanes)`` returns ``pack(row, first)``: a bit per lane, set if it is active, from bit `first` on.
packer = _choose(_pack_bits_simulated, _pack_bits_compiled)
#: ``unpacker(loop, lanes)`` returns ``unpack(bits, first)``: a row of ones and zeros, an operand for `apply`.
unpacker = _choose(_unpack_bits_simulated, _unpack_bits_compiled)
