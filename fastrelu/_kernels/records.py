"""Where things stand in the arrays of words that Python and the compiled loops share."""

# A slot: the `data` of one loop of one ufunc.
LOOP, KERNEL, OPERANDS, ITEMSIZE, TABLE, INDEX, WANTS, SLOT_WORDS = range(8)

# A table: the thresholds of one target. Every loop reads them on every call, so that they can change any time.
# LARGE to LAUNCHER are addresses of parts of the driver, 0 until they are compiled; IDENT is that of a function
# that names the calling thread, MINCORE that of the system's function, or 0. Before the time of RESUME nothing runs in
# parallel. Loops have the table of the automatic choice: INSTEAD is the address of the one to use, its own or that of
# the configured target, and FORCED that of the first force, 0 while there is none. From OWNER on stand the names of the
# threads that may have a team of threads; the negative name of the main thread, which has a place but no team yet.
(
    PARALLEL_MIN, STREAMING_MIN, INSTEAD, FORCED, ALLOWED, SHARED, BUSY, LARGE, RUN_JOB, RUN_UNIT, RUN_FLAT_UNIT,
    RUN_CYCLE_UNIT, LAUNCHER, RESUME, IDENT, MINCORE, OWNER,
) = range(17)  # fmt: skip
#: A force: the address of the next one, a thread, and the table that its loops use, 0 for none.
NEXT, WHO, USES, FORCE_WORDS = range(4)
#: Each of them has threads of its own under the omp layer. The first place is the main thread's. A choice: without a
#: bound, 64 callers of 16 threads each made 1,041 threads.
TEAMS = 4
TABLE_WORDS = OWNER + TEAMS

# What a loop answers: done, or the part of the driver that it wants, named in its slot, or to be an owner.
DONE, WANTING = 0, 1

# A job: its head, then (extent, block, count) per axis, then (address, stride per axis) per operand.
JOB_RUN_UNIT, JOB_KERNEL, JOB_OPERANDS, JOB_ITEMSIZE, JOB_STREAM, JOB_UNITS, AXES, JOB_HEAD = range(8)
AXIS = 3
#: What JOB_STREAM says: plain stores; streaming ones of whole lines; streaming ones by a kernel that finds the lines.
PLAIN, STREAM_LINES, STREAM = range(3)
MAX_OPERANDS = 5  # of a ufunc, its output among them
#: Addresses that a kernel takes: of operands, output and sums, and what stands behind them.
MAX_POINTERS = 8
#: A one-dimensional job has two axes, the outer one of length 1.
LINE_JOB = JOB_HEAD + 2 * AXIS + MAX_OPERANDS * 3

#: A parallel call that takes more cycles than this, and so many more per byte of output, has waited for a thread
#: without a core. A serial one takes half a cycle per byte in the worst case, which is new memory.
WAITED, WAITED_PER_BYTE = 1_000_000, 4
#: For so many times as long as it took, but no more than so many cycles, calls then run serially. (The first touch of
#: memory that a virtual machine has not been given yet also takes long, and says nothing about the next call.)
RECOVER, RECOVER_AT_MOST = 16, 1 << 28

#: Bytes per cache line, and the alignment of streaming stores.
LINE = 64
#: Bytes of output per unit.
UNIT_BYTES = 1 << 16
#: Streamed units are longer by this factor: each waits for its stores at its end. relu of 64,000,000 elements, time
#: of the C in bench/limit.c over ours: 0.95 at 64 KiB, 1.00 at 256 KiB (two-core Intel Xeon with AMX, 2026-11-21).
STREAMED = 4
#: Those with a mask, whose units cannot begin at a line of the output, by this: relu_with_mask of 64,000,000 elements
#: took 1.13 of relu's time at 256 KiB, 1.07 at 1 MiB, 1.05 at 2 MiB (the same machine and day).
FLAT_STREAMED = 16
#: Where there are fewer units than this, they are made smaller, so that there are as many. Seven units on two threads
#: are four and three: relu_backward of 100,000 elements took 1.04 of torch's time with them, 0.82 with sixteen
#: (the same machine and day); relu of as many gained nothing.
EVEN = 16

NEVER = (1 << 63) - 1

#: Stands for the stride of sums that start again after so many columns (`_sum_kernels`).
CYCLE = -1

# What the recycler has: its lock, the size of the smallest block that it keeps, the bytes that it may keep and keeps,
# how many blocks those are, the functions of NumPy's allocator and of the C library's that tells the size of a block,
# then (address, size) per block, oldest first.
LOCK, FROM, LIMIT, KEPT, BLOCKS, MALLOC, FREE, USABLE, FIRST_BLOCK = range(9)
#: A choice, which bounds the time of a search; the limit in bytes usually means fewer.
MOST_BLOCKS = 16
RECYCLER_WORDS = FIRST_BLOCK + 2 * MOST_BLOCKS
