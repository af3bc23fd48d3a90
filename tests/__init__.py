"""What must be true of Alphabet, one module of facts for each module of code."""
