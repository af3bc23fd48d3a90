"""What `alphabet receive` does: outputs taken, kept, and acknowledged."""
