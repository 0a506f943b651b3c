"""What Python and compiled code share in memory: records of words of 64 bits, and the numbers that go with them.

Python writes their fields, as ``table.launcher = address``; compiled code sees the same fields (`intrinsics`), and what
llvmlite emits their offsets, as ``Slot.loop.offset``. Reading a field takes Python 18 ns so, 181 of one of NumPy's
structured scalars, and 1,400 of one of its records (Python 3.11, NumPy 2.4, November 2026).
"""

import ctypes
import functools

_WORD = ctypes.c_int64


def _words(*names: str) -> list[tuple[str, type[_WORD]]]:
    return [(name, _WORD) for name in names]


class Slot(ctypes.Structure):
    """The `data` of one loop of one ufunc."""

    _fields_ = _words(
        "loop",  # address of what the trampoline calls, 0 until it is there
        "kernel",  # its address
        "operands",  # how many, the output among them
        "itemsize",
        "table",  # address of that of the automatic choice
        "index",  # in the list of slots
        "wants",  # what the loop lacks, one of `WISHES`
    )


#: What a loop answers: that it is done, or that it wants something: routines of its table, or to be an owner.
DONE, WANTING = 0, 1
WISHES = ("nothing", "large", "run_job", "launcher", "owner")
_, LARGE, RUN_JOB, LAUNCHER, OWNER = range(len(WISHES))

#: So many threads have threads of their own under the omp layer. A choice: without a bound, 64 callers of 16 threads
#: each made 1,041 threads.
TEAMS = 4


class Table(ctypes.Structure):
    """What the loops of one target read on every call, so that it can change any time."""

    _fields_ = (
        *_words(
            "parallel_min",  # bytes moved
            "streaming_min",  # bytes written
            "instead",  # address of the table to use: this one, or that of the configured target
            "forced",  # address of the first force, 0 while there is none
            "allowed",  # whether anything may run in parallel
            "shared",  # whether one call at a time does, of an owner
            "busy",  # 1 while it does
            "resume",  # the time before which none does
            # Addresses of routines, 0 until they are compiled
            "large", "run_job", "run_tile", "run_bitmask_tile", "run_cyclic_tile", "launcher",
            "ident",  # address of a function that names the calling thread
            "mincore",  # address of the system's function, or 0
        ),
        # Names of the threads that may have a team of threads; the negative name of the main thread, which has the
        # first place but no team yet
        ("owners", _WORD * TEAMS),
    )  # fmt: skip


class Force(ctypes.Structure):
    """A target that a thread forces on its loops."""

    _fields_ = _words(
        "next",  # address of the next one, or 0
        "who",  # name of the thread
        "uses",  # address of the table that its loops use, 0 for none
    )


#: Operands of a ufunc at most, its output among them.
MAX_OPERANDS = 5
#: Addresses that a kernel takes: of operands, output and sums, and what stands behind them.
MAX_POINTERS = 8


class Axis(ctypes.Structure):
    """An axis of a job: its extent, how much of it a tile covers, how many tiles that makes, the operands' strides."""

    _fields_ = (*_words("extent", "block", "count"), ("strides", _WORD * MAX_POINTERS))


class Job(ctypes.Structure):
    """Work that is cut into tiles. Behind it stand its axes, two at least; see `job_with`."""

    _fields_ = (
        *_words(
            "run_tile",  # address of the routine that runs a tile
            "kernel",  # address of what that calls
            "operands",  # how many
            "itemsize",
            "stream",  # PLAIN, STREAM_LINES or STREAM
            "tiles",  # how many
            "axes",  # how many
            "period",  # columns after which sums start again, where they do
        ),
        ("addresses", _WORD * MAX_POINTERS),
    )


@functools.cache
def job_with(axes: int) -> type[Job]:
    """Return the kind of a job of so many axes, in its field `axis`."""
    return type("Job", (Job,), {"_fields_": [("axis", Axis * axes)]})


#: What a job's `stream` says: plain stores; streaming ones of whole lines; those of a kernel that finds the lines.
PLAIN, STREAM_LINES, STREAM = range(3)


class Block(ctypes.Structure):
    """Memory that the recycler keeps."""

    _fields_ = _words("address", "size")


#: A choice, which bounds the time of a search; the limit in bytes usually means fewer.
MOST_BLOCKS = 16


class Recycler(ctypes.Structure):
    """What keeps the memory of large arrays that were dropped."""

    _fields_ = (
        *_words(
            "lock",
            "smallest",  # bytes of a block that it keeps
            "limit",  # bytes that it may keep
            "kept",  # bytes that it keeps
            "blocks",  # how many those are
            "malloc", "free",  # addresses of the functions of NumPy's allocator
            "usable",  # address of the C library's function that tells the size of a block, or 0
        ),
        ("block", Block * MOST_BLOCKS),  # the oldest first
    )  # fmt: skip


#: A parallel call that takes more cycles than this, and so many more per byte of output, has waited for a thread
#: without a core. A serial one takes half a cycle per byte in the worst case, which is new memory.
WAITED, WAITED_PER_BYTE = 1_000_000, 4
#: For so many times as long as it took, but no more than so many cycles, calls then run serially. (The first touch of
#: memory that a virtual machine has not been given yet also takes long, and says nothing about the next call.)
RECOVER, RECOVER_AT_MOST = 16, 1 << 28

#: Bytes per cache line, and the alignment of streaming stores.
LINE = 64
#: Bytes of output per tile.
TILE_BYTES = 1 << 16
#: Streamed tiles are longer by this factor: each waits for its stores at its end. relu of 64,000,000 elements, time
#: of the C in bench/limit.c over ours: 0.95 at 64 KiB, 1.00 at 256 KiB (two-core Intel Xeon with AMX, 2026-11-21).
STREAMED = 4
#: Those with a bitmask, whose tiles cannot begin at a line of the output, by this: relu_with_mask of 64,000,000
#: elements took 1.13 of relu's time at 256 KiB, 1.07 at 1 MiB, 1.05 at 2 MiB (the same machine and day).
BITMASK_STREAMED = 16
#: Where there are fewer tiles than this, they are made smaller, so that there are as many. Seven tiles on two threads
#: are four and three: relu_backward of 100,000 elements took 1.04 of torch's time with them, 0.82 with sixteen
#: (the same machine and day); relu of as many gained nothing.
EVEN = 16

NEVER = (1 << 63) - 1

#: Stands for the stride of sums that start again after so many columns (`sums`).
CYCLE = -1
