"""What runs compiled code: settings, threads, compiling on demand, the cache, ufunc objects."""
