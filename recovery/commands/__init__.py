"""The commands of `alphabet-replay`, one a module, and what they share.

With `recovery.cli`, the one part of `recovery` that looks up at `alphabet`: to know
its application, and to share its ways on the command line.
"""
