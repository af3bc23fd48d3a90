"""The documents as a site: `python -m docs.site`, or `make site`.

The documents stay where they are, as people read them in the repository. A copy is
laid out for the site, with the pages that are made of the code beside it, and Zensical
builds that, with warnings as errors.
"""
