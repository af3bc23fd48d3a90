"""Plain TCP sources: connections accepted, read and cut into frames, and the inbox."""
