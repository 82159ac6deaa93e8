"""What stages have in common that score embeddings with the head of a scorer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tastemaker.errors import ConfigurationError
from tastemaker.models.hub import ensure_head
from tastemaker.models.published import find_scorer
from tastemaker.models.records import Scorer
from tastemaker.provenance import weights_digest, weights_provenance
from tastemaker.stages.base import NodeInfo, ProcessingStage, Resources, WorkerMetadata, X, Y
from tastemaker.storage import Options
from tastemaker.storage.place import Place

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor


class HeadStage(ProcessingStage[X, Y]):
    """A stage with the head of a scorer. Subclasses are dataclasses with these fields.

    Attributes:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        predictor: Path of other weights for the head; None for the scorer's own.
        scorer: A name, or a `Scorer`.
        storage_options: Settings of the store of models at a URL.
    """

    model_dir: str | None
    predictor: str | None
    scorer: str | Scorer
    storage_options: Options | None
    _predictor: Predictor | None
    _provenance: dict[str, str]

    def __post_init__(self) -> None:
        find_scorer(self.scorer)
        self.resources = Resources()

    @property
    def _scorer(self) -> Scorer:
        return find_scorer(self.scorer)

    def check(self) -> None:
        """Raise `ConfigurationError` if the predictor's file is not there."""
        own = None if self.predictor is None else Place.of(self.predictor).local_path
        if own is not None and not own.is_file():
            raise ConfigurationError(f"predictor: {self.predictor} does not exist")

    def fingerprint(self) -> dict[str, Any]:
        """Return the options and the weights."""
        digest = weights_digest(self._scorer.head, self.model_dir, self.predictor, self.storage_options)
        return {**super().fingerprint(), "predictor": digest, "scorer": self._scorer.name}

    def setup_on_node(self, node_info: NodeInfo | None = None, worker_metadata: WorkerMetadata | None = None) -> None:
        """Fetch the weights, if they are not there."""
        ensure_head(self._scorer.head, self.predictor, self.model_dir, self.storage_options)

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Load the predictor."""
        weights = ensure_head(self._scorer.head, self.predictor, self.model_dir, self.storage_options)
        self._predictor = self._scorer.head.load(weights)
        made_by = weights_provenance("predictor", self._scorer.head, weights)
        self._provenance = {"scorer": self._scorer.name, **made_by}

    def teardown(self) -> None:
        """Free the predictor."""
        self._predictor = None
