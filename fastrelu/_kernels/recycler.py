"""What keeps the memory of large arrays that were dropped, compiled: two functions of a NumPy memory handler, and one
that gives it back.

NumPy's own allocator gets the memory and takes it back. Nobody ever waits for the lock: whoever finds it taken goes to
that allocator too. So a thread that is not there any more, in a forked child, cannot block anybody.
"""

from numba.core import types
from numba.extending import register_jitable

from .intrinsics import call1, call2, call3, peek, poke, release, take
from .records import BLOCKS, FIRST_BLOCK, FREE, FROM, KEPT, LIMIT, LOCK, MALLOC, MOST_BLOCKS, USABLE


def allocate(table, size):
    """Return a kept block for so many bytes, of at most a quarter more, the last one kept first; else a new one.

    A quarter is what jemalloc rounds large sizes up by.
    """
    found = 0
    if size >= peek(table, FROM) and take(table + 8 * LOCK):
        for k in range(peek(table, BLOCKS) - 1, -1, -1):
            kept = peek(table, FIRST_BLOCK + 2 * k + 1)
            if size <= kept <= size + size // 4:
                found = remove(table, k)
                break
        release(table + 8 * LOCK)
    return found if found != 0 else call2(peek(table, MALLOC), 0, size)


def free(table, address, size):
    """Keep the block of an array that was dropped, and for it give up the oldest ones; or free it.

    Its size is what malloc says: NumPy passes that of the array, which `ndarray.__setstate__` may have changed.
    """
    usable = call1(peek(table, USABLE), address)
    limit = peek(table, LIMIT)
    if peek(table, FROM) <= usable <= limit and take(table + 8 * LOCK):
        shrink(table, limit - usable, MOST_BLOCKS - 1)
        last = peek(table, BLOCKS)
        poke(table, FIRST_BLOCK + 2 * last, address)
        poke(table, FIRST_BLOCK + 2 * last + 1, usable)
        poke(table, BLOCKS, last + 1)
        poke(table, KEPT, peek(table, KEPT) + usable)
        release(table + 8 * LOCK)
    else:
        call3(peek(table, FREE), 0, address, size)
    return 0


def trim(table, limit):
    """Free what is kept beyond so many bytes; return whether the lock was free."""
    done = take(table + 8 * LOCK)
    if done:
        shrink(table, limit, MOST_BLOCKS)
        release(table + 8 * LOCK)
    return int(done)


@register_jitable
def shrink(table, limit, blocks):
    """Free the oldest blocks, until what is kept is within limits."""
    while peek(table, KEPT) > limit or peek(table, BLOCKS) > blocks:
        size = peek(table, FIRST_BLOCK + 1)
        call3(peek(table, FREE), 0, remove(table, 0), size)


@register_jitable
def remove(table, k):
    """Take block ``k`` out of the table; return its address."""
    place = FIRST_BLOCK + 2 * k
    address = peek(table, place)
    poke(table, KEPT, peek(table, KEPT) - peek(table, place + 1))
    poke(table, BLOCKS, peek(table, BLOCKS) - 1)
    for word in range(place, FIRST_BLOCK + 2 * peek(table, BLOCKS)):
        poke(table, word, peek(table, word + 2))
    return address


_word = types.intp
FUNCTIONS = (allocate, _word(_word, _word)), (free, _word(_word, _word, _word)), (trim, _word(_word, _word))
