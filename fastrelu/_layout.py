"""Where things stand in the arrays of words that Python and the compiled loops share."""

# A slot: the `data` of one loop of one ufunc.
LOOP, KERNEL, OPERANDS, ITEMSIZE, TABLE, INDEX, WANTS, SLOT_WORDS = range(8)

# A table: the thresholds of one target. Every loop reads them on every call, so that they can change any time.
# LARGE to LAUNCHER are addresses of parts of the driver, 0 until they are compiled; IDENT is that of a function
# that names the calling thread. From OWNER on stand the names of the threads that may have a team of threads.
PARALLEL_MIN, STREAMING_MIN, ALLOWED, SHARED, BUSY, LARGE, RUN_JOB, RUN_UNIT, LAUNCHER, IDENT, OWNER = range(11)
#: Each of them has threads of its own under the omp layer. The first place is the main thread's.
TEAMS = 4
TABLE_WORDS = OWNER + TEAMS

# What a loop answers: done, or the part of the driver that it wants, named in its slot, or to be an owner.
DONE, WANTING = 0, 1

# A job: its head, then (extent, block, count) per axis, then (address, stride per axis) per operand.
JOB_RUN_UNIT, JOB_KERNEL, JOB_OPERANDS, JOB_ITEMSIZE, JOB_STREAM, JOB_UNITS, AXES, JOB_HEAD = range(8)
AXIS = 3
MAX_OPERANDS = 5
#: A one-dimensional job has two axes, the outer one of length 1.
LINE_JOB = JOB_HEAD + 2 * AXIS + MAX_OPERANDS * 3

#: Bytes of output per unit.
UNIT_BYTES = 1 << 16
#: Streamed units are longer by this factor: each waits for its stores at its end.
STREAMED = 4
#: Where there are fewer units than this, they are made smaller, so that there are as many.
EVEN = 16

NEVER = (1 << 63) - 1
