"""What an application is made of, and how it works: components, steps, states."""
