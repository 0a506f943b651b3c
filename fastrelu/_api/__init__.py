"""The public functions, and what a user can set and ask."""
