"""Plain sinks: a place in the log, a live window, and the threads that send."""
