"""Sockets and what they need: addresses, listening, dialing, TLS, waking a thread."""
