"""What runs the kernels: the loop that NumPy calls, and the routines behind it. Compiled once for all types.

Small calls meet only `inner_loop` and a kernel. Everything else is described as a *job*: kernel, axes and operands,
cut into *tiles* of some ten thousand elements, which one thread runs in turn or the launcher spreads over all.
The routines call each other by address, so that each is compiled once, and only when a call wants it: as one
function, they took 1.5 s to compile, of which a small call needs a tenth.
"""

import mmap

from numba import prange
from numba.core import types
from numba.extending import register_jitable

from .choose import choose as _choose
from .intrinsics import (
    JOB,
    SLOT,
    TABLE,
    WORDS,
    call,
    force_at,
    item,
    job_at,
    new_job,
    new_words,
    read_flags,
    release,
    table_at,
    take,
    ticks,
    words_of,
    write_flags,
)
from .records import (
    DONE,
    EVEN,
    LARGE,
    LAUNCHER,
    LINE,
    MAX_OPERANDS,
    OWNER,
    RECOVER,
    RECOVER_AT_MOST,
    RUN_JOB,
    STREAMED,
    TEAMS,
    TILE_BYTES,
    WAITED,
    WAITED_PER_BYTE,
    WANTING,
)
from .tiles import run_bitmask_tile, run_cyclic_tile, run_tile

PAGE = mmap.PAGESIZE
# Not inline="always": Numba then removes what it takes for dead, words that are set through a pointer among it
choose = register_jitable(_choose)


def inner_loop(pointers, dimensions, strides, slot):
    """The loop that NumPy calls, through the trampoline: one for all operations and types."""
    n = dimensions[0]
    table = table_at(table_of(slot))
    flags = read_flags()
    status = DONE
    size = n * slot.itemsize
    if size * MAX_OPERANDS < table.parallel_min and size < table.streaming_min:
        call(slot.kernel, pointers, n, strides, 0)
    elif table.large == 0:
        slot.wants = LARGE
        status = WANTING
    else:
        status = call(table.large, pointers, n, strides, slot)
    if read_flags() != flags:
        write_flags(flags)
    return status


def large(pointers, n, strides, slot):
    """Run one long loop: in parallel, streaming, or plainly where neither may be."""
    table = table_at(table_of(slot))
    operands = slot.operands
    itemsize = slot.itemsize
    out = pointers[operands - 1]
    out_stride = strides[operands - 1]
    low = min(out, out + (n - 1) * out_stride)
    high = max(out, out + (n - 1) * out_stride) + itemsize
    moved = n * itemsize
    streamable = out_stride == itemsize
    independent = out_stride != 0  # shorter ones than an element NumPy takes for unaligned, and copies
    for k in range(operands - 1):
        start = pointers[k]
        stride = strides[k]
        end = start + (n - 1) * stride
        if stride != 0:
            moved += n * itemsize
        if min(start, end) < high and low < max(start, end) + itemsize:
            streamable = False
            # Each element of the input is the element of the output at that place, or `accumulate` is
            # feeding its results back: then only the plain loop in order is right.
            independent = independent and start == out and stride == out_stride
    # Where a forced target is not allowed, the wish for the launcher ends in the error that says why
    allowed = table.allowed != 0
    parallel, streaming = choose(
        moved,
        n * itemsize,
        streamable,
        allowed or table.shared == 0,
        table.parallel_min,
        table.streaming_min,
    )
    if not independent or not (parallel or streaming):
        call(slot.kernel, pointers, n, strides, 0)
        return DONE
    wanted = LAUNCHER if parallel else RUN_JOB  # the launcher comes with what it needs
    there = table.launcher if parallel else table.run_job
    if there == 0 or (parallel and not allowed):
        slot.wants = wanted
        return WANTING
    if parallel and table.shared and not owns(table, OWNED) and owns(table, FREE):
        slot.wants = OWNER
        return WANTING
    head = 0
    if streaming:
        # Tiles that begin at a line: a line that two tiles share is written by plain stores, thus read before
        head = min(n, -out % LINE // itemsize)
        call(slot.kernel, pointers, head, strides, 0)
        n -= head
    block = TILE_BYTES // itemsize
    if streaming:
        block *= STREAMED
    elif n < block * EVEN:
        # Seven tiles on two threads are four and three: few tiles are an even number of them, of whole lines
        block = ((n + EVEN - 1) // EVEN * itemsize + LINE - 1) // LINE * LINE // itemsize
    job = new_job()
    job.run_tile = table.run_tile
    job.kernel = slot.kernel
    job.operands = operands
    job.itemsize = itemsize
    job.stream = streaming
    job.tiles = (n + block - 1) // block
    job.axes = 2
    outer = item(job, "axis", 0)
    outer.extent = outer.block = outer.count = 1
    inner = item(job, "axis", 1)
    inner.extent = n
    inner.block = block
    inner.count = job.tiles
    for k in range(operands):
        words_of(job, "addresses")[k] = pointers[k] + head * strides[k]
        words_of(outer, "strides")[k] = 0
        words_of(inner, "strides")[k] = strides[k]
    call(table.run_job, job, table, parallel)
    return DONE


@register_jitable
def table_of(slot):
    """Return the address of the table that the loops of this thread use: a forced one, or the configured one."""
    automatic = table_at(slot.table)
    result = automatic.instead
    if automatic.forced != 0:
        here = call(automatic.ident)
        place = automatic.forced
        while place != 0:
            force = force_at(place)
            if force.who == here and force.uses != 0:
                result = force.uses
            place = force.next
    return result


OWNED, FREE = True, False


@register_jitable
def owns(table, owned):
    """Say whether this thread is an owner; or, asked for FREE, whether there is a place for it."""
    here = call(table.ident)
    found = False
    for place in range(TEAMS):
        owner = words_of(table, "owners")[place]
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
    new = job.stream and untouched(job, table)
    if new:
        job.stream = 0
    if parallel and table.shared == 0:
        call(table.launcher, job)
    elif parallel and ticks() >= table.resume and owns(table, OWNED) and take(words_of(table, "busy")):
        begin = ticks()
        call(table.launcher, job)
        spent = ticks() - begin
        release(words_of(table, "busy"))
        block = item(job, "axis", job.axes - 2).block * item(job, "axis", job.axes - 1).block * job.itemsize
        # (New memory takes as long as a virtual machine's host takes to find it, which says nothing about the cores)
        if not new and spent > WAITED + job.tiles * block * WAITED_PER_BYTE:
            table.resume = begin + min(RECOVER * spent, RECOVER_AT_MOST)
    else:
        for tile in range(job.tiles):
            call(job.run_tile, job, tile)
    if read_flags() != flags:
        write_flags(flags)
    return 0


@register_jitable
def untouched(job, table):
    """Say whether the system has yet to supply the memory of a job's output, of which it looks at the middle.

    It clears each page when it is first written to, which leaves the page in the caches, where plain stores find it;
    streaming ones send it to memory twice. The ends of an array may lie in a neighbour's huge page.
    """
    output = job.operands - 1
    middle = words_of(job, "addresses")[output]
    for place in range(job.axes):
        axis = item(job, "axis", place)
        middle += axis.extent // 2 * words_of(axis, "strides")[output]
    answer = new_words(1)
    answer[0] = 1  # what it stays where the system does not say
    if table.mincore != 0:
        call(table.mincore, middle // PAGE * PAGE, 1, answer)
    return answer[0] & 1 == 0


def launcher(address):
    """Run a job on all threads. Compiled with ``parallel=True``, which takes an address, and no record."""
    job = job_at(address)
    run_tile, tiles = job.run_tile, job.tiles
    # prange over tiles, not over numba.get_num_threads() pieces: that name would be a "dynamic global",
    # which Numba does not cache
    for tile in prange(tiles):
        call(run_tile, address, tile)
    return 0


_TILE = types.intp(JOB, types.intp)
#: The functions by the field of a table where their address goes, with their signatures; the loop's goes into slots.
ROUTINES = {
    "loop": (inner_loop, types.intp(WORDS, WORDS, WORDS, SLOT)),
    "large": (large, types.intp(WORDS, types.intp, WORDS, SLOT)),
    "run_job": (run_job, types.intp(JOB, TABLE, types.intp)),
    "run_tile": (run_tile, _TILE),
    "run_bitmask_tile": (run_bitmask_tile, _TILE),
    "run_cyclic_tile": (run_cyclic_tile, _TILE),
    "launcher": (launcher, types.intp(types.intp)),
}
