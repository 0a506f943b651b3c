"""What runs the kernels: the loop that NumPy calls, and the parts behind it. Compiled once for all types.

Small calls meet only `inner_loop` and a kernel. Everything else is described as a *job*: kernel, axes and operands,
cut into *units* of some ten thousand elements, which one thread runs in turn or the launcher spreads over all.
The parts call each other by address, so that each is compiled once, and only when a call wants it: as one
function, the driver took 1.5 s to compile, of which a small call needs a tenth.
"""

import mmap

from numba import prange
from numba.core import types
from numba.extending import register_jitable

from .choose import choose as _choose
from .intrinsics import (
    call0,
    call1,
    call2,
    call3,
    call4,
    peek,
    poke,
    read_flags,
    release,
    stack,
    stream_fence,
    take,
    ticks,
    write_flags,
)
from .records import (
    ALLOWED,
    AXES,
    AXIS,
    BUSY,
    CYCLE,
    DONE,
    EVEN,
    FORCED,
    IDENT,
    INSTEAD,
    ITEMSIZE,
    JOB_HEAD,
    JOB_ITEMSIZE,
    JOB_KERNEL,
    JOB_OPERANDS,
    JOB_RUN_UNIT,
    JOB_STREAM,
    JOB_UNITS,
    KERNEL,
    LARGE,
    LAUNCHER,
    LINE,
    LINE_JOB,
    LOOP,
    MAX_OPERANDS,
    MAX_POINTERS,
    MINCORE,
    NEXT,
    OPERANDS,
    OWNER,
    PARALLEL_MIN,
    RECOVER,
    RECOVER_AT_MOST,
    RESUME,
    RUN_CYCLE_UNIT,
    RUN_FLAT_UNIT,
    RUN_JOB,
    RUN_UNIT,
    SHARED,
    STREAM_LINES,
    STREAMED,
    STREAMING_MIN,
    TABLE,
    TEAMS,
    UNIT_BYTES,
    USES,
    WAITED,
    WAITED_PER_BYTE,
    WANTING,
    WANTS,
    WHO,
)

PAGE = mmap.PAGESIZE
choose = register_jitable(inline="always")(_choose)


def inner_loop(pointers, dimensions, strides, slot):
    """The loop that NumPy calls, through the entry point: one for all operations and types."""
    n = peek(dimensions, 0)
    table = table_of(slot)
    flags = read_flags()
    status = DONE
    size = n * peek(slot, ITEMSIZE)
    if size * MAX_OPERANDS < peek(table, PARALLEL_MIN) and size < peek(table, STREAMING_MIN):
        call4(peek(slot, KERNEL), pointers, n, strides, 0)
    elif peek(table, LARGE) == 0:
        poke(slot, WANTS, LARGE)
        status = WANTING
    else:
        status = call4(peek(table, LARGE), pointers, n, strides, slot)
    if read_flags() != flags:
        write_flags(flags)
    return status


def large(pointers, n, strides, slot):
    """Run one long loop: in parallel, streaming, or plainly where neither may be."""
    table = table_of(slot)
    operands = peek(slot, OPERANDS)
    itemsize = peek(slot, ITEMSIZE)
    kernel = peek(slot, KERNEL)
    out = peek(pointers, operands - 1)
    out_stride = peek(strides, operands - 1)
    low = min(out, out + (n - 1) * out_stride)
    high = max(out, out + (n - 1) * out_stride) + itemsize
    moved = n * itemsize
    streamable = out_stride == itemsize
    independent = out_stride != 0  # shorter ones than an element NumPy takes for unaligned, and copies
    for k in range(operands - 1):
        start = peek(pointers, k)
        stride = peek(strides, k)
        end = start + (n - 1) * stride
        if stride != 0:
            moved += n * itemsize
        if min(start, end) < high and low < max(start, end) + itemsize:
            streamable = False
            # Each element of the input is the element of the output at that place, or `accumulate` is
            # feeding its results back: then only the plain loop in order is right.
            independent = independent and start == out and stride == out_stride
    # Where a forced target is not allowed, the wish for the launcher ends in the error that says why
    allowed = peek(table, ALLOWED) != 0
    parallel, streaming = choose(
        moved,
        n * itemsize,
        streamable,
        allowed or peek(table, SHARED) == 0,
        peek(table, PARALLEL_MIN),
        peek(table, STREAMING_MIN),
    )
    if not independent or not (parallel or streaming):
        call4(kernel, pointers, n, strides, 0)
        return DONE
    wanted = LAUNCHER if parallel else RUN_JOB  # the launcher comes with what it needs
    if peek(table, wanted) == 0 or (parallel and not allowed):
        poke(slot, WANTS, wanted)
        return WANTING
    if parallel and peek(table, SHARED) and not owns(table, OWNED) and owns(table, FREE):
        poke(slot, WANTS, OWNER)
        return WANTING
    head = 0
    if streaming:
        # Units that begin at a line: a line that two units share is written by plain stores, thus read before
        head = min(n, -out % LINE // itemsize)
        call4(kernel, pointers, head, strides, 0)
        n -= head
    job = stack(LINE_JOB)
    unit = UNIT_BYTES // itemsize
    if streaming:
        unit *= STREAMED
    elif n < unit * EVEN:
        # Seven units on two threads are four and three: few units are an even number of them, of whole lines
        unit = ((n + EVEN - 1) // EVEN * itemsize + LINE - 1) // LINE * LINE // itemsize
    units = (n + unit - 1) // unit
    poke(job, JOB_RUN_UNIT, peek(table, RUN_UNIT))
    poke(job, JOB_KERNEL, kernel)
    poke(job, JOB_OPERANDS, operands)
    poke(job, JOB_ITEMSIZE, itemsize)
    poke(job, JOB_STREAM, streaming)
    poke(job, JOB_UNITS, units)
    poke(job, AXES, 2)
    for axis in range(2):
        poke(job, JOB_HEAD + AXIS * axis, n if axis else 1)
        poke(job, JOB_HEAD + AXIS * axis + 1, unit if axis else 1)
        poke(job, JOB_HEAD + AXIS * axis + 2, units if axis else 1)
    for k in range(operands):
        place = JOB_HEAD + 2 * AXIS + 3 * k
        poke(job, place, peek(pointers, k) + head * peek(strides, k))
        poke(job, place + 1, 0)
        poke(job, place + 2, peek(strides, k))
    call3(peek(table, RUN_JOB), job, table, parallel)
    return DONE


@register_jitable
def table_of(slot):
    """Return the table that the loops of this thread use: a forced one, or the configured one."""
    table = peek(slot, TABLE)
    force = peek(table, FORCED)
    table = peek(table, INSTEAD)
    if force != 0:
        here = call0(peek(table, IDENT))
        while force != 0:
            if peek(force, WHO) == here and peek(force, USES) != 0:
                table = peek(force, USES)
            force = peek(force, NEXT)
    return table


OWNED, FREE = True, False


@register_jitable
def owns(table, owned):
    """Say whether this thread is an owner; or, asked for FREE, whether there is a place for it."""
    here = call0(peek(table, IDENT))
    found = False
    for place in range(OWNER, OWNER + TEAMS):
        owner = peek(table, place)
        found |= owner == here if owned else owner in (0, -here)
    return found


def run_job(job, table, parallel):
    """Run a job, from `large` or from Python, on all threads or on this one.

    Every omp caller gets a team of threads of its own, which lives as long as the caller, so that a program with
    many threads would drown in them. A table that shares the busy word lets one call at a time be parallel, and
    only the few owners; the others run here.

    A team ends its work when the last of its threads does. Where another program, or the threads of a BLAS that spin
    after a product of matrices, hold a core, that is some milliseconds later: `x @ w` and `relu_` of 1 MiB in turn,
    on two cores, took 4 to 7 ms instead of 0.1, and torch the same. So such a call is followed by serial ones.
    """
    flags = read_flags()
    new = peek(job, JOB_STREAM) and untouched(job, table)
    if new:
        poke(job, JOB_STREAM, 0)
    if parallel and peek(table, SHARED) == 0:
        call1(peek(table, LAUNCHER), job)
    elif parallel and ticks() >= peek(table, RESUME) and owns(table, OWNED) and take(table + 8 * BUSY):
        begin = ticks()
        call1(peek(table, LAUNCHER), job)
        spent = ticks() - begin
        release(table + 8 * BUSY)
        last = JOB_HEAD + AXIS * (peek(job, AXES) - 1)
        unit = peek(job, last - AXIS + 1) * peek(job, last + 1) * peek(job, JOB_ITEMSIZE)
        # (New memory takes as long as a virtual machine's host takes to find it, which says nothing about the cores)
        if not new and spent > WAITED + peek(job, JOB_UNITS) * unit * WAITED_PER_BYTE:
            poke(table, RESUME, begin + min(RECOVER * spent, RECOVER_AT_MOST))
    else:
        for unit in range(peek(job, JOB_UNITS)):
            call2(peek(job, JOB_RUN_UNIT), job, unit)
    if read_flags() != flags:
        write_flags(flags)
    return 0


@register_jitable
def untouched(job, table):
    """Say whether the system has yet to supply the memory of a job's output, of which it looks at the middle.

    It clears each page when it is first written to, which leaves the page in the caches, where plain stores find it;
    streaming ones send it to memory twice. The ends of an array may lie in a neighbour's huge page.
    """
    axes = peek(job, AXES)
    place = JOB_HEAD + AXIS * axes + (peek(job, JOB_OPERANDS) - 1) * (axes + 1)
    middle = peek(job, place)
    for axis in range(axes):
        middle += peek(job, JOB_HEAD + AXIS * axis) // 2 * peek(job, place + 1 + axis)
    answer = stack(1)
    poke(answer, 0, 1)  # what it stays where the system does not say
    if peek(table, MINCORE) != 0:
        call3(peek(table, MINCORE), middle // PAGE * PAGE, 1, answer)
    return peek(answer, 0) & 1 == 0


def launcher(job):
    """Run a job on all threads. Compiled with ``parallel=True``."""
    # prange over units, not over numba.get_num_threads() pieces: that name would be a "dynamic global",
    # which Numba does not cache
    for unit in prange(peek(job, JOB_UNITS)):
        call2(peek(job, JOB_RUN_UNIT), job, unit)
    return 0


def run_unit(job, unit):
    """Run one unit of a job: a block of the last two axes at one place of the others."""
    operands = peek(job, JOB_OPERANDS)
    axes = peek(job, AXES)
    table = job + 8 * (JOB_HEAD + AXIS * axes)  # per operand: an address and a stride per axis
    width = axes + 1
    pointers = stack(MAX_POINTERS)
    strides = stack(MAX_POINTERS)
    row = stack(MAX_POINTERS)
    for k in range(operands):
        poke(row, k, peek(table, k * width))
        poke(strides, k, peek(table, k * width + axes))
    n = 0
    rows = 0
    remaining = unit
    for axis in range(axes - 1, -1, -1):
        block = peek(job, JOB_HEAD + AXIS * axis + 1)
        count = peek(job, JOB_HEAD + AXIS * axis + 2)
        start = remaining % count * block
        length = min(block, peek(job, JOB_HEAD + AXIS * axis) - start)
        remaining //= count
        for k in range(operands):
            poke(row, k, peek(row, k) + start * peek(table, k * width + 1 + axis))
        if axis == axes - 1:
            n = length
        elif axis == axes - 2:
            rows = length
    for _ in range(rows):
        for k in range(operands):
            poke(pointers, k, peek(row, k))
            poke(row, k, peek(row, k) + peek(table, k * width + axes - 1))
        if peek(job, JOB_STREAM) == STREAM_LINES:
            run_streaming(job, pointers, n, strides)
        else:
            call4(peek(job, JOB_KERNEL), pointers, n, strides, peek(job, JOB_STREAM))
    if peek(job, JOB_STREAM):
        stream_fence()
    return 0


def run_flat_unit(job, unit):
    """Run one unit of a job whose last operand is a mask: a stretch of the elements as C order counts them.

    The kernel is called for each stretch that lies in one row; behind the operands' addresses it finds the number of
    the first bit. A unit begins at a whole byte of the mask, so that no two of them share one.
    """
    operands = peek(job, JOB_OPERANDS)
    axes = peek(job, AXES)
    table = job + 8 * (JOB_HEAD + AXIS * axes)  # per operand: an address and a stride per axis
    width = axes + 1
    last = JOB_HEAD + AXIS * (axes - 1)
    pointers = stack(MAX_POINTERS)
    strides = stack(MAX_POINTERS)
    for k in range(operands):
        poke(strides, k, peek(table, k * width + axes))
    size = 1
    for axis in range(axes):
        size *= peek(job, JOB_HEAD + AXIS * axis)
    start = unit * peek(job, last + 1)
    stop = min(size, start + peek(job, last + 1))
    while start < stop:
        for k in range(operands):
            place = peek(table, k * width)
            remaining = start
            for axis in range(axes - 1, -1, -1):
                extent = peek(job, JOB_HEAD + AXIS * axis)
                place += remaining % extent * peek(table, k * width + 1 + axis)
                remaining //= extent
            poke(pointers, k, place)
        poke(pointers, operands, start)
        length = peek(job, last)
        n = min(length - start % length, stop - start)
        call4(peek(job, JOB_KERNEL), pointers, n, strides, peek(job, JOB_STREAM))
        start += n
    if peek(job, JOB_STREAM):
        stream_fence()
    return 0


def run_cycle_unit(job, unit):
    """Run one unit of a job over contiguous data in one dimension, whose sums start again after so many elements.

    Each unit has sums of its own. Behind the operands' addresses the kernel finds with which column it begins, and how
    many there are; in the job, that number stands behind the operands.
    """
    operands = peek(job, JOB_OPERANDS)
    table = job + 8 * (JOB_HEAD + 2 * AXIS)
    block = peek(job, JOB_HEAD + AXIS + 1)
    start = unit * block
    n = min(block, peek(job, JOB_HEAD + AXIS) - start)
    pointers = stack(MAX_POINTERS)
    strides = stack(MAX_POINTERS)
    for k in range(operands):
        stride = peek(table, 3 * k + 2)
        poke(strides, k, stride)
        poke(pointers, k, peek(table, 3 * k) + (unit * peek(table, 3 * k + 1) if stride == CYCLE else start * stride))
    period = peek(table, 3 * operands)
    poke(pointers, operands, start % period)
    poke(pointers, operands + 1, period)
    call4(peek(job, JOB_KERNEL), pointers, n, strides, peek(job, JOB_STREAM))
    if peek(job, JOB_STREAM):
        stream_fence()
    return 0


@register_jitable
def run_streaming(job, pointers, n, strides):
    """Run a kernel with streaming stores on the whole cache lines of its output, plainly on both ends."""
    kernel = peek(job, JOB_KERNEL)
    output = peek(job, JOB_OPERANDS) - 1
    itemsize = peek(job, JOB_ITEMSIZE)
    target = peek(pointers, output)
    head = min(n, -target % LINE // itemsize)
    if (target + head * itemsize) % LINE != 0:
        call4(kernel, pointers, n, strides, 0)  # elements that straddle lines, or too few of them
        return
    call4(kernel, pointers, head, strides, 0)
    whole = (n - head) // (LINE // itemsize) * (LINE // itemsize)
    for k in range(output + 1):
        poke(pointers, k, peek(pointers, k) + head * peek(strides, k))
    call4(kernel, pointers, whole, strides, 1)
    for k in range(output + 1):
        poke(pointers, k, peek(pointers, k) + whole * peek(strides, k))
    call4(kernel, pointers, n - head - whole, strides, 0)


def _of_words(count):
    return types.intp(*[types.intp] * count)


#: The functions by the place in a table where their address goes, with their signatures; the inner loop's goes into
#: each slot.
PARTS = {
    LOOP: (inner_loop, _of_words(4)), LARGE: (large, _of_words(4)), RUN_JOB: (run_job, _of_words(3)),
    RUN_UNIT: (run_unit, _of_words(2)), RUN_FLAT_UNIT: (run_flat_unit, _of_words(2)),
    RUN_CYCLE_UNIT: (run_cycle_unit, _of_words(2)), LAUNCHER: (launcher, _of_words(1)),
}  # fmt: skip
