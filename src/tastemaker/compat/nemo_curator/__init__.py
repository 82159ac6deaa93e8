"""NeMo Curator's image pipeline under NeMo Curator's names, so that its scripts run unchanged.

``names`` holds the table of names and the import finder, ``stages``, ``models`` and ``engines`` the few classes whose
defaults or habits differ from Tastemaker's own, ``nsfw`` and ``functions`` what Tastemaker itself does not have.
docs/nemo-compatibility.md lists every difference that is left.
"""

from tastemaker.compat.nemo_curator.names import NAMES, install, uninstall

__all__ = ["NAMES", "install", "uninstall"]
