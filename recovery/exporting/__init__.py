"""An export: which events go into which file, written whole, once or for ever."""
