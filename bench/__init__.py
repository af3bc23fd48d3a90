"""Measures Alphabet on one machine, with real processes: `python -m bench`.

No part of the product: it imports the packages, and none of them imports it.
"""
