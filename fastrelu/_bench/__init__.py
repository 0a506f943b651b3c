"""What tests, `bench/` and the command line share: the plain-Python oracle, the table of peers, the quick runner.

Imports nothing of fastrelu but its public names.
"""
