"""State rebuilt from a log, and copies of a log: snapshots, replay, verify, backup.

Imports `log` and nothing of `alphabet`, but for the command line (`cli.py` and
`commands/`), which looks the application up.
"""
