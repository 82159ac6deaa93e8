"""Which name of NeMo Curator is which of ours, and the import finder that answers for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tastemaker import __version__
from tastemaker.errors import ConfigurationError

ROOT = "nemo_curator"
VERSION = f"1.4.0+tastemaker.{__version__}"
"""``nemo_curator.__version__``: the version whose names these are, and who answers for them."""

_HERE = "tastemaker.compat.nemo_curator"
_ENGINES, _MODELS, _STAGES = f"{_HERE}.engines", f"{_HERE}.models", f"{_HERE}.stages"
_DUPLICATES, _NSFW = f"{_HERE}.duplicates", f"{_HERE}.nsfw"
_TASKS, _BASE = "tastemaker.tasks", "tastemaker.stages.base"


def _at(home: str, *names: str) -> dict[str, str]:
    return {name: f"{home}:{name}" for name in names}


NAMES: dict[str, dict[str, str]] = {
    "nemo_curator": {"__version__": f"{_HERE}.names:VERSION"},
    "nemo_curator.backends.base": _at("tastemaker.executors", "BaseExecutor")
    | _at(_BASE, "NodeInfo", "WorkerMetadata"),
    "nemo_curator.backends.ray_actor_pool": _at(_ENGINES, "RayActorPoolExecutor"),
    "nemo_curator.backends.ray_data": _at(_ENGINES, "RayDataExecutor"),
    "nemo_curator.backends.xenna": _at(_ENGINES, "XennaExecutor"),
    "nemo_curator.core.client": _at(_ENGINES, "RayClient", "SlurmRayClient"),
    "nemo_curator.models.aesthetics": _at(_MODELS, "AestheticScorer"),
    "nemo_curator.models.base": _at(_MODELS, "ModelInterface"),
    "nemo_curator.models.clip": _at(_MODELS, "CLIPAestheticScorer", "CLIPImageEmbeddings"),
    "nemo_curator.models.nsfw": _at(_NSFW, "NSFWScorer"),
    "nemo_curator.pipeline": _at(_ENGINES, "Pipeline"),
    "nemo_curator.pipeline.workflow": _at(_DUPLICATES, "WorkflowBase", "WorkflowRunResult"),
    "nemo_curator.stages.base": _at(_STAGES, "CompositeStage", "ProcessingStage") | _at(_BASE, "Resources"),
    "nemo_curator.stages.deduplication.semantic": _at(_DUPLICATES, "SemanticDeduplicationWorkflow"),
    "nemo_curator.stages.file_partitioning": _at(_STAGES, "FilePartitioningStage"),
    "nemo_curator.stages.image.deduplication.removal": _at(_DUPLICATES, "ImageDuplicatesRemovalStage"),
    "nemo_curator.stages.image.embedders": _at(_STAGES, "ImageEmbeddingStage"),
    "nemo_curator.stages.function_decorators": _at(f"{_HERE}.functions", "processing_stage"),
    "nemo_curator.stages.image.filters": _at(_STAGES, "ImageAestheticFilterStage") | _at(_NSFW, "ImageNSFWFilterStage"),
    "nemo_curator.stages.image.filters.base": _at(_STAGES, "BaseFilterStage"),
    "nemo_curator.stages.image.io": _at(_STAGES, "ImageReaderStage"),
    "nemo_curator.stages.image.io.convert": _at(_DUPLICATES, "ConvertImageBatchToDocumentBatchStage"),
    "nemo_curator.stages.image.io.image_writer": _at(_STAGES, "ImageWriterStage"),
    "nemo_curator.stages.resources": _at(_BASE, "Resources"),
    "nemo_curator.stages.text.io.writer": _at(_DUPLICATES, "ParquetWriter"),
    "nemo_curator.tasks": _at(_DUPLICATES, "DocumentBatch")
    | _at(_TASKS, "EmptyTask", "FileGroupTask", "ImageBatch", "ImageObject", "Task")
    | {"_EmptyTask": f"{_TASKS}:EmptyTask"},
    "nemo_curator.tasks.document": _at(_DUPLICATES, "DocumentBatch"),
    "nemo_curator.tasks.file_group": _at(_TASKS, "FileGroupTask"),
    "nemo_curator.tasks.image": _at(_TASKS, "ImageBatch", "ImageObject"),
    "nemo_curator.tasks.sentinels": _at(_TASKS, "EmptyTask"),
    "nemo_curator.tasks.tasks": _at(_TASKS, "EmptyTask", "Task") | {"_EmptyTask": f"{_TASKS}:EmptyTask"},
    "nemo_curator.tasks.utils": _at(f"{_HERE}.perf", "TaskPerfUtils"),
    "nemo_curator.utils.performance_utils": _at("tastemaker.stage_perf", "StagePerfStats"),
}
"""Module of NeMo Curator -> name in it -> ``module:name`` of ours. The modules above these are packages."""

_ALIASES = {
    "nemo_curator.backends.experimental.ray_actor_pool": "nemo_curator.backends.ray_actor_pool",  # where 1.0 had it
    "nemo_curator.backends.experimental.ray_data": "nemo_curator.backends.ray_data",
    "nemo_curator.backends.ray_actor_pool.executor": "nemo_curator.backends.ray_actor_pool",
    "nemo_curator.backends.ray_data.executor": "nemo_curator.backends.ray_data",
    "nemo_curator.backends.xenna.executor": "nemo_curator.backends.xenna",
    "nemo_curator.pipeline.pipeline": "nemo_curator.pipeline",
    "nemo_curator.stages.deduplication.semantic.workflow": "nemo_curator.stages.deduplication.semantic",
    "nemo_curator.stages.image.embedders.clip_embedder": "nemo_curator.stages.image.embedders",
    "nemo_curator.stages.image.filters.aesthetic_filter": "nemo_curator.stages.image.filters",
    "nemo_curator.stages.image.filters.nsfw_filter": "nemo_curator.stages.image.filters",
    "nemo_curator.stages.image.io.image_reader": "nemo_curator.stages.image.io",
    "nemo_curator.stages.text.io.writer.parquet": "nemo_curator.stages.text.io.writer",
}
NAMES |= {alias: NAMES[module] for alias, module in _ALIASES.items()}

_KNOWN = {module.rsplit(".", up)[0] for module in NAMES for up in range(module.count(".") + 1)}


def install() -> None:
    """Answer for ``import nemo_curator...`` in this process from now on, installed or not.

    Raises:
        ConfigurationError: The real one was imported before.

    Example:
        >>> install()
        >>> from nemo_curator.tasks import ImageBatch
        >>> ImageBatch.__module__
        'tastemaker.tasks'
        >>> uninstall()
    """
    if any(isinstance(finder, NamesFinder) for finder in sys.meta_path):
        return
    if ROOT in sys.modules:
        raise ConfigurationError("nemo_curator is imported already; call install() before the first import of it")
    sys.meta_path.insert(0, NamesFinder())


def uninstall() -> None:
    """Undo `install`."""
    installed = [finder for finder in sys.meta_path if isinstance(finder, NamesFinder)]
    for finder in installed:
        sys.meta_path.remove(finder)
        for module in [name for name in sys.modules if _is_below(name)]:
            del sys.modules[module]


class NamesFinder(MetaPathFinder):
    """Finds the modules of the table. Every other module below ``nemo_curator`` is an error that lists them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module comes from; None for what is not NeMo Curator's.

        Raises:
            ModuleNotFoundError: It is NeMo Curator's and not in the table.
        """
        if not _is_below(fullname):
            return None
        if fullname not in _KNOWN:
            # Without name=: `from package import missing` would swallow the error and make a bare one of its own.
            raise ModuleNotFoundError(_describe_missing(fullname))
        # All are packages, so that `from module import missing` comes here too, and not to Python's own message.
        return ModuleSpec(fullname, _NamesLoader(), origin=f"{_HERE}.names", is_package=True)


class _NamesLoader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        names = sorted(name for name in NAMES.get(module.__name__, {}) if not name.startswith("_"))
        module.__doc__ = f"Tastemaker's {module.__name__}; see docs/nemo-compatibility.md."
        vars(module).update(__all__=names, __getattr__=partial(_look_up, module), __dir__=lambda: names)


def _look_up(module: ModuleType, name: str) -> Any:  # noqa: ANN401 - any class
    home = NAMES.get(module.__name__, {}).get(name)
    fullname = f"{module.__name__}.{name}"
    if home is None and fullname not in _KNOWN:
        raise AttributeError(_describe_missing(fullname))
    if home is None:
        return import_module(fullname)
    ours, _, attribute = home.partition(":")
    value = getattr(import_module(ours), attribute)
    setattr(module, name, value)
    return value


def _is_below(module: str) -> bool:
    return module == ROOT or module.startswith(f"{ROOT}.")


def _describe_missing(fullname: str) -> str:
    parent = fullname.rpartition(".")[0]
    while parent not in _KNOWN:
        parent = parent.rpartition(".")[0]
    names = [name for name in NAMES.get(parent, {}) if not name.startswith("_")]
    modules = [module.rpartition(".")[2] for module in _KNOWN if module.rpartition(".")[0] == parent]
    return (
        f"Tastemaker has no {fullname}. {parent} holds: {', '.join(sorted({*names, *modules}))}. Tastemaker stands in "
        "for NeMo Curator's image modules alone. See docs/nemo-compatibility.md"
    )
