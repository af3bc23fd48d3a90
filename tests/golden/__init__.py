"""Logs as they were once written, kept as they are: every format is read for good."""
