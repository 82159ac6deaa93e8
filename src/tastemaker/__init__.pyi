"""The public names of Tastemaker, by the modules that they are in: the one list of them."""

from tastemaker.errors import (
    ConfigurationError as ConfigurationError,
    MissingExtraError as MissingExtraError,
    ModelError as ModelError,
    StageError as StageError,
    TastemakerError as TastemakerError,
    UnreadableImageError as UnreadableImageError,
    WeightsNotFoundError as WeightsNotFoundError,
)
from tastemaker.executors import (
    BaseExecutor as BaseExecutor,
    LocalExecutor as LocalExecutor,
    RayDataExecutor as RayDataExecutor,
    XennaExecutor as XennaExecutor,
)
from tastemaker.explorer.report import ReportSummary as ReportSummary, write_report as write_report
from tastemaker.imaging.decode import decode_image as decode_image
from tastemaker.imaging.jpeg_metadata import embed_rating as embed_rating
from tastemaker.imaging.model_input import Preprocess as Preprocess
from tastemaker.imaging.preprocess import preprocess as preprocess
from tastemaker.imaging.signals import Signals as Signals, compute_signals as compute_signals
from tastemaker.models.aesthetic import AestheticPredictor as AestheticPredictor
from tastemaker.models.clip import load_clip as load_clip
from tastemaker.models.clip_openvino import OpenVinoClip as OpenVinoClip
from tastemaker.models.clip_torch import TorchClip as TorchClip
from tastemaker.models.hub import ensure_weights as ensure_weights
from tastemaker.models.published import find_scorer as find_scorer, published_scorers as published_scorers
from tastemaker.models.published.openai_clip import (
    CLIP_VIT_B16 as CLIP_VIT_B16,
    CLIP_VIT_B32 as CLIP_VIT_B32,
    CLIP_VIT_L14 as CLIP_VIT_L14,
)
from tastemaker.models.records import (
    Backbone as Backbone,
    Head as Head,
    Scorer as Scorer,
    TextConfig as TextConfig,
    TextNames as TextNames,
    Tokenizer as Tokenizer,
    VitConfig as VitConfig,
    VitNames as VitNames,
)
from tastemaker.models.text import TextTower as TextTower
from tastemaker.models.vit import VisionTower as VisionTower
from tastemaker.parity import (
    ParityReport as ParityReport,
    verify_parity as verify_parity,
)
from tastemaker.pipeline import Pipeline as Pipeline
from tastemaker.runs.options import RunMode as RunMode, RunOptions as RunOptions, Slice as Slice
from tastemaker.runs.rescore import rescore as rescore
from tastemaker.runs.run import run_scoring as run_scoring
from tastemaker.runs.summary import RunSummary as RunSummary
from tastemaker.scores.cutoff import Cutoff as Cutoff, TableSummary as TableSummary, Top as Top
from tastemaker.scores.groups import group_duplicates as group_duplicates
from tastemaker.scores.neighbours import nearest_rows as nearest_rows
from tastemaker.scores.search import TextSearch as TextSearch
from tastemaker.scores.stacks import BestFrames as BestFrames, best_of_group as best_of_group
from tastemaker.scores.table import ScoreTable as ScoreTable
from tastemaker.selections.learn import learn_taste as learn_taste
from tastemaker.selections.rating import (
    StarOptions as StarOptions,
    take_back_stars as take_back_stars,
    write_stars as write_stars,
)
from tastemaker.selections.select import (
    SelectSummary as SelectSummary,
    select_images as select_images,
    take_back_selection as take_back_selection,
)
from tastemaker.selections.selection import Selection as Selection
from tastemaker.stages.aesthetic import ImageAestheticFilterStage as ImageAestheticFilterStage
from tastemaker.stages.base import ProcessingStage as ProcessingStage, Resources as Resources
from tastemaker.stages.embed import ImageEmbeddingStage as ImageEmbeddingStage
from tastemaker.stages.partition import FilePartitioningStage as FilePartitioningStage
from tastemaker.stages.read import ImageReaderStage as ImageReaderStage
from tastemaker.stages.signals import ImageSignalsStage as ImageSignalsStage
from tastemaker.stages.write import ImageWriterStage as ImageWriterStage
from tastemaker.tasks import (
    EmptyTask as EmptyTask,
    FileGroupTask as FileGroupTask,
    ImageBatch as ImageBatch,
    ImageObject as ImageObject,
    Task as Task,
)

__version__: str
__all__: list[str]
