"""What stages have in common that score embeddings with the heads of scorers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tastemaker.models.published import Scorers, find_scorers
from tastemaker.models.words import fetch_head, load_head
from tastemaker.provenance import score_provenance, weights_digest
from tastemaker.stages.base import NodeInfo, ProcessingStage, WorkerMetadata, X, Y
from tastemaker.storage import Options

if TYPE_CHECKING:
    from tastemaker.models.records import Scorer


class HeadStage(ProcessingStage[X, Y]):
    """A stage with the heads of scorers. Subclasses are dataclasses with these fields.

    Attributes:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        scorer: What `find_scorers` takes: one scorer, or several with one backbone.
        storage_options: Settings of the store of models at a URL.
    """

    model_dir: str | None
    scorer: Scorers
    storage_options: Options | None
    _heads: dict[str, Any]
    _made_by: dict[str, dict[str, str]]

    def __post_init__(self) -> None:
        find_scorers(self.scorer, self.storage_options)

    @property
    def _scorers(self) -> tuple[Scorer, ...]:
        return find_scorers(self.scorer, self.storage_options)

    def fingerprint(self) -> dict[str, Any]:
        """Return the options, and the weights by column."""
        digests = {
            scorer.column: weights_digest(scorer.head, self.model_dir, self.storage_options) for scorer in self._scorers
        }
        return {**super().fingerprint(), "scores": digests}

    def setup_on_node(self, node_info: NodeInfo | None = None, worker_metadata: WorkerMetadata | None = None) -> None:
        """Fetch the weights, if they are not there."""
        for scorer in self._scorers:
            fetch_head(scorer, self.model_dir, self.storage_options)

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Load the heads."""
        for scorer in self._scorers:
            self._heads[scorer.column], weights = load_head(scorer, self.model_dir, self.storage_options)
            self._made_by[scorer.column] = score_provenance(scorer, weights)

    def teardown(self) -> None:
        """Free the heads."""
        self._heads.clear()
