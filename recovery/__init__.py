"""State rebuilt from a log: snapshots, replay, verify, compact.

Imports `log` and nothing of `alphabet`, but for the command line (`cli.py`), which
looks the application up.
"""
