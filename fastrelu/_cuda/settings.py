"""The shape of a launch. Kernels compile `VECTORS` in; the rest is read at each launch, so that tests can change it.

Every value is a start value, set without a GPU at hand; ``python bench/cuda_variants.py`` races the
alternatives. The reasoning until then: reading 16 bytes takes some 700 ns from the memory of a Hopper GPU, so
4.8 TB/s need about 25 KiB in flight on each of its 132 multiprocessors; 2,048 threads with one load each
have 32 KiB, with four loads four times that, and a quarter of the threads suffices.
"""

#: Threads of a block.
BLOCK = 256
#: 16-byte loads of each operand that a thread has in flight, and elements per thread in the strided kernel.
VECTORS = 4
#: Blocks of a launch at most; 0 means one block per tile of data. A block then loops over the tiles left over.
MAX_BLOCKS = 0
#: Below this many tiles of `VECTORS` per multiprocessor, threads take one vector each: more blocks, filling the device.
FILL = 2

#: Threads of a pass with sums, about. More units take more, and few terms each fewer.
SUM_THREADS = 1 << 17
#: Accesses of a thread at least, if there are so many: each thread leaves a sum in memory.
SUM_TERMS = 16
#: Accesses of each operand that a thread has in flight.
SUM_LOADS = 4
#: Sums that a thread of a later pass adds up, and how many of them it has in flight: waiting for each in turn, it would
#: take longer than the pass over the data of a few megabytes.
SUM_FOLD, SUM_FOLD_LOADS = 32, 16


def of_launches() -> tuple[int, ...]:
    """Return what the plan of every launch depends on, for who remembers plans."""
    return BLOCK, VECTORS, MAX_BLOCKS, FILL


def of_sums() -> tuple[int, ...]:
    """Return what the plan of a pass with sums depends on besides."""
    return SUM_THREADS, SUM_TERMS, SUM_LOADS, SUM_FOLD, SUM_FOLD_LOADS


#: Bytes of one vector access, the widest that every supported GPU has.
VECTOR_BYTES = 16
#: What the hardware allows in a grid's first dimension.
GRID_LIMIT = (1 << 31) - 1

#: Bytes of one pinned staging buffer; host arrays travel through two of them in each direction at most.
STAGING_BYTES = 32 << 20
