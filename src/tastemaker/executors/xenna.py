"""The name that NeMo Curator's programs know for what runs a pipeline on a cluster."""

from __future__ import annotations

from tastemaker.executors.ray_data import RayDataExecutor


class XennaExecutor(RayDataExecutor):
    """`RayDataExecutor` under another name, with the same arguments: cosmos-xenna itself is not used."""
