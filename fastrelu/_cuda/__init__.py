"""The CUDA target. Imported on first use: nothing on the way of a CPU call touches it.

What the floors below call is `executor`. A call: `recognise` says whose arrays they are, `libraries` reads them, and
asks for new ones; `device_call` is what all calls have in common, `elementwise` one of an operation, `passes` one of a
function that does more, `bitmask` and `sums` its kinds; `staging` copies host arrays, and `quick` is a short way for
the commonest calls.

A launch: `layouts` and `grids` say how kernels may go over the arrays, `launch_cache` remembers it, `launcher` does it.
`specs` and the modules named kernels are what is compiled, of the parts in `access`, for a GPU by `emitter`.

Below are `cuda_driver`, `numba_cuda`, the one import of Numba's CUDA target, and for its simulator `simulator`.
"""
