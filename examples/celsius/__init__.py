"""Celsius to Fahrenheit: components made of functions, and binary numbers."""
