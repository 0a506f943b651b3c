"""What runs a tile of a job, which is a piece that one thread runs; and the kernels by whole cache lines."""

from numba.extending import register_jitable

from .intrinsics import call, item, new_words, stream_fence, words_of
from .records import CYCLE, LINE, MAX_POINTERS, STREAM_LINES


def run_tile(job, tile):
    """Run one tile of a job: a block of the last two axes at one place of the others."""
    pointers = new_words(MAX_POINTERS)
    row = new_words(MAX_POINTERS)
    for k in range(job.operands):
        row[k] = words_of(job, "addresses")[k]
    n = 0
    rows = 0
    for place in range(job.axes - 1, -1, -1):
        axis = item(job, "axis", place)
        start = tile % axis.count * axis.block
        length = min(axis.block, axis.extent - start)
        tile //= axis.count
        for k in range(job.operands):
            row[k] += start * words_of(axis, "strides")[k]
        if place == job.axes - 1:
            n = length
        elif place == job.axes - 2:
            rows = length
    strides = words_of(item(job, "axis", job.axes - 1), "strides")
    down = words_of(item(job, "axis", job.axes - 2), "strides")
    for _ in range(rows):
        for k in range(job.operands):
            pointers[k] = row[k]
            row[k] += down[k]
        if job.stream == STREAM_LINES:
            run_streaming(job, pointers, n, strides)
        else:
            call(job.kernel, pointers, n, strides, job.stream)
    if job.stream:
        stream_fence()
    return 0


def run_bitmask_tile(job, tile):
    """Run one tile of a job with a bitmask: a stretch of the elements as C order counts them.

    The kernel is called for each stretch that lies in one row; behind the operands' addresses it finds the number of
    the first bit. A tile begins at a whole byte of the bitmask, so that no two of them share one.
    """
    pointers = new_words(MAX_POINTERS)
    last = item(job, "axis", job.axes - 1)
    strides = words_of(last, "strides")
    size = 1
    for place in range(job.axes):
        size *= item(job, "axis", place).extent
    start = tile * last.block
    stop = min(size, start + last.block)
    while start < stop:
        for k in range(job.operands):
            address = words_of(job, "addresses")[k]
            remaining = start
            for place in range(job.axes - 1, -1, -1):
                axis = item(job, "axis", place)
                address += remaining % axis.extent * words_of(axis, "strides")[k]
                remaining //= axis.extent
            pointers[k] = address
        pointers[job.operands] = start
        n = min(last.extent - start % last.extent, stop - start)
        call(job.kernel, pointers, n, strides, job.stream)
        start += n
    if job.stream:
        stream_fence()
    return 0


def run_cyclic_tile(job, tile):
    """Run one tile of a job over contiguous data in one dimension, whose sums start again after so many elements.

    Each tile has sums of its own. Behind the operands' addresses the kernel finds with which column it begins, and how
    many there are.
    """
    pointers = new_words(MAX_POINTERS)
    axis = item(job, "axis", 1)
    strides = words_of(axis, "strides")
    start = tile * axis.block
    n = min(axis.block, axis.extent - start)
    for k in range(job.operands):
        to_sums = tile * words_of(item(job, "axis", 0), "strides")[k]
        pointers[k] = words_of(job, "addresses")[k] + (to_sums if strides[k] == CYCLE else start * strides[k])
    pointers[job.operands] = start % job.period
    pointers[job.operands + 1] = job.period
    call(job.kernel, pointers, n, strides, job.stream)
    if job.stream:
        stream_fence()
    return 0


@register_jitable
def run_streaming(job, pointers, n, strides):
    """Run a kernel with streaming stores on the whole cache lines of its output, plainly on both ends."""
    itemsize = job.itemsize
    target = pointers[job.operands - 1]
    head = min(n, -target % LINE // itemsize)
    if (target + head * itemsize) % LINE != 0:
        call(job.kernel, pointers, n, strides, 0)  # elements that straddle lines, or too few of them
        return
    call(job.kernel, pointers, head, strides, 0)
    whole = (n - head) // (LINE // itemsize) * (LINE // itemsize)
    advance(job, pointers, head, strides)
    call(job.kernel, pointers, whole, strides, 1)
    advance(job, pointers, whole, strides)
    call(job.kernel, pointers, n - head - whole, strides, 0)


@register_jitable
def advance(job, pointers, n, strides):
    for k in range(job.operands):
        pointers[k] += n * strides[k]
