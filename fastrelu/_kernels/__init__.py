"""All that Numba compiles into the cache: kernels, the loop around them, and the records that they read."""
