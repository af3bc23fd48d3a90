"""Measures Alphabet on one machine, beside its peers: `python -m bench`.

No part of the product: it imports the packages, and none of them imports it. Servers
are used as anybody uses them, by command line, sockets and files. docs/BENCHMARKS.md
says how each figure is made.

- `parts/` holds one module for each part that can be measured alone;
- `peers/` what a user might pick instead;
- `bare/` the yardstick: the same job with nothing around it;
- `case` takes turns between those that are compared, `report` and `picture` show it.
"""
