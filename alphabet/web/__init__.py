"""The page and what is beside it: how a running server is watched over HTTP.

Read-only. Nothing of it is imported before the server is ready, and counting waits for
none of it.
"""
