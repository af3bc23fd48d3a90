"""The commands of `alphabet`, a module each."""
