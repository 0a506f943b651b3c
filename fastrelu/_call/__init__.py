"""How a call runs in host memory: from its arguments to a ufunc or a job."""
