"""The yardstick: the same job in Python, numpy and LMDB, and nothing around it.

One sender, one sink; a flush per commit. No checksums, no rejects, no cursors, no
snapshots, no restart, and the first bad frame ends it. What it reaches is about what
this machine gives a Python program; Alphabet is held against that.
"""
