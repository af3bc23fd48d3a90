"""What is left of a damaged log, and a new log made of it."""
