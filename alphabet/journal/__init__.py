"""What the server says on standard error, line by line."""
