"""Applications to learn from and to begin with, each in a directory of its own."""
