"""What keeps the memory of large arrays that were dropped, compiled: two functions of a NumPy memory handler, and one
that gives it back.

NumPy's own allocator gets the memory and takes it back. Nobody ever waits for the lock: whoever finds it taken goes to
that allocator too. So a thread that is not there any more, in a forked child, cannot block anybody.
"""

from numba.core import types
from numba.extending import register_jitable

from .intrinsics import RECYCLER, call, item, release, take, words_of
from .records import MOST_BLOCKS


def allocate(recycler, size):
    """Return a kept block for so many bytes, of at most a quarter more, the last one kept first; else a new one.

    A quarter is what jemalloc rounds large sizes up by.
    """
    found = 0
    if size >= recycler.smallest and take(words_of(recycler, "lock")):
        for k in range(recycler.blocks - 1, -1, -1):
            if size <= item(recycler, "block", k).size <= size + size // 4:
                found = remove(recycler, k)
                break
        release(words_of(recycler, "lock"))
    return found if found != 0 else call(recycler.malloc, 0, size)


def free(recycler, address, size):
    """Keep the block of an array that was dropped, and for it give up the oldest ones; or free it.

    Its size is what malloc says: NumPy passes that of the array, which `ndarray.__setstate__` may have changed.
    """
    usable = call(recycler.usable, address)
    limit = recycler.limit
    if recycler.smallest <= usable <= limit and take(words_of(recycler, "lock")):
        shrink(recycler, limit - usable, MOST_BLOCKS - 1)
        block = item(recycler, "block", recycler.blocks)
        block.address = address
        block.size = usable
        recycler.blocks += 1
        recycler.kept += usable
        release(words_of(recycler, "lock"))
    else:
        call(recycler.free, 0, address, size)
    return 0


def trim(recycler, limit):
    """Free what is kept beyond so many bytes; return whether the lock was free."""
    done = take(words_of(recycler, "lock"))
    if done:
        shrink(recycler, limit, MOST_BLOCKS)
        release(words_of(recycler, "lock"))
    return int(done)


@register_jitable
def shrink(recycler, limit, blocks):
    """Free the oldest blocks, until what is kept is within limits."""
    while recycler.kept > limit or recycler.blocks > blocks:
        size = item(recycler, "block", 0).size
        call(recycler.free, 0, remove(recycler, 0), size)


@register_jitable
def remove(recycler, k):
    """Take block ``k`` out; return its address."""
    address = item(recycler, "block", k).address
    recycler.kept -= item(recycler, "block", k).size
    recycler.blocks -= 1
    for place in range(k, recycler.blocks):
        block, after = item(recycler, "block", place), item(recycler, "block", place + 1)
        block.address = after.address
        block.size = after.size
    return address


_word = types.intp
FUNCTIONS = (allocate, _word(RECYCLER, _word)), (free, _word(RECYCLER, _word, _word)), (trim, _word(RECYCLER, _word))
