"""The Mixer: one list out of several retrieval branches, LEADRE's beside the others. LEADRE §4.4.1, §5.3.

A branch is a plug-in (branches.py, plugins.py); mix.py asks them and merging.py merges; server.py is the application.
"""

from leadre.serving.mixer.server import create_app

__all__ = ["create_app"]
