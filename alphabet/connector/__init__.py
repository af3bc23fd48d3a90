"""The exactly-once protocol, both its ends, and the sources and sinks that speak it."""
