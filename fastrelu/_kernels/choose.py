"""The decision: how many threads, which stores. Compiled into the loops, and called as Python by explain."""


def choose(
    moved: int,
    written: int,
    streamable: bool,
    parallel_allowed: bool,
    parallel_min_bytes: int,
    streaming_min_bytes: int,
) -> tuple[bool, bool]:
    """Return ``(parallel, streaming)`` for a call that moves and writes that many bytes.

    Moved counts every array that is read and the output. Streaming stores bypass the caches, which pays once
    the output cannot stay in them anyway; `streamable` says that the output is contiguous and is no input.
    """
    parallel = parallel_allowed and moved >= parallel_min_bytes
    streaming = streamable and written >= streaming_min_bytes
    return parallel, streaming
