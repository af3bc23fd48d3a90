"""What `alphabet send` does: votes from files or chance to one server or many."""
