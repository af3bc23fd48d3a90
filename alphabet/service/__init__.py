"""What a service manager asks of the server, and is told."""
