"""Fuzzing of every parser that reads from outside; `targets` has the table."""
