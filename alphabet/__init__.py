"""A vote counter that never loses a vote: the application and the runtime under it.

Begin with `application.py`; ARCHITECTURE.md has the map.
"""
