"""The whole server in one thread, on a simulated machine: every run can be repeated.

`processor` has threads, locks and time; `network` has sockets; `twin` is the server's
code, executed against these two; `peers` send and receive; `world` puts all together
and checks the promises; `schedule` makes runs from seeds, and shrinks those that fail.
"""
