"""What a user might pick instead of Alphabet, each in the best form that we know."""
