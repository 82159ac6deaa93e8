"""Scripts in the shape of NeMo Curator's documented examples, and the function that runs one as a user would."""

import os
import subprocess
import sys
from pathlib import Path

import tastemaker

CURATE = """
import argparse
import time

from nemo_curator.backends.xenna import XennaExecutor
from nemo_curator.core.client import RayClient
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.file_partitioning import FilePartitioningStage
from nemo_curator.stages.image.embedders.clip_embedder import ImageEmbeddingStage
from nemo_curator.stages.image.filters.aesthetic_filter import ImageAestheticFilterStage
from nemo_curator.stages.image.io.image_reader import ImageReaderStage
from nemo_curator.stages.image.io.image_writer import ImageWriterStage


def create_pipeline(args: argparse.Namespace) -> Pipeline:
    pipeline = Pipeline(name="image_curation", description="Score, filter, write")
    pipeline.add_stage(FilePartitioningStage(
        file_paths=args.input_wds_dataset_dir,
        files_per_partition=args.tar_files_per_partition,
        file_extensions=[".tar"],
    ))
    pipeline.add_stage(ImageReaderStage(
        dali_batch_size=args.batch_size,
        verbose=args.verbose,
        num_threads=16,
        num_gpus_per_worker=0.25,
    ))
    pipeline.add_stage(ImageEmbeddingStage(
        model_dir=args.model_dir,
        num_gpus_per_worker=0.25,
        model_inference_batch_size=32,
        remove_image_data=False,
        verbose=args.verbose,
    ))
    pipeline.add_stage(ImageAestheticFilterStage(
        model_dir=args.model_dir,
        num_gpus_per_worker=0.25,
        model_inference_batch_size=32,
        score_threshold=args.aesthetic_threshold,
        verbose=args.verbose,
    ))
    pipeline.add_stage(ImageWriterStage(
        output_dir=args.output_dataset_dir,
        images_per_tar=args.images_per_tar,
        remove_image_data=True,
        verbose=args.verbose,
    ))
    return pipeline


def main(args: argparse.Namespace) -> None:
    ray_client = RayClient()
    ray_client.start()
    start_time = time.time()
    pipeline = create_pipeline(args)
    print(pipeline.describe())
    executor = XennaExecutor(config={"logging_interval": 60, "ignore_failures": False, "execution_mode": "streaming"})
    results = pipeline.run(executor, checkpoint_path=args.checkpoint_dir)
    kept = sum(task._metadata["num_images"] for task in results)
    print(f"{kept} images kept in {time.time() - start_time:.2f} seconds")
    ray_client.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Image curation pipeline")
    parser.add_argument("--input-wds-dataset-dir", type=str, required=True)
    parser.add_argument("--output-dataset-dir", type=str, required=True)
    parser.add_argument("--model-dir", type=str, required=True)
    parser.add_argument("--tar-files-per-partition", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--aesthetic-threshold", type=float, default=0.5)
    parser.add_argument("--images-per-tar", type=int, default=100)
    parser.add_argument("--checkpoint-dir", type=str, default=None)
    parser.add_argument("--verbose", action="store_true", default=False)
    main(parser.parse_args())
"""

OWN_STAGES = '''
import sys
from dataclasses import dataclass, field

import numpy as np
from nemo_curator.backends.base import WorkerMetadata
from nemo_curator.pipeline.pipeline import Pipeline
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.file_partitioning import FilePartitioningStage
from nemo_curator.stages.image.embedders.clip_embedder import ImageEmbeddingStage
from nemo_curator.stages.image.filters import ImageAestheticFilterStage
from nemo_curator.stages.image.io.image_reader import ImageReaderStage
from nemo_curator.stages.image.io.image_writer import ImageWriterStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks import EmptyTask, ImageBatch


@dataclass
class WideFilter(ProcessingStage[ImageBatch, ImageBatch]):
    """Keeps images that are not wider than a limit."""

    max_width: int = 600
    name: str = "wide_filter"
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0))

    def inputs(self) -> tuple[list[str], list[str]]:
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        return ["data"], []

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        self.seen = 0

    def process(self, task: ImageBatch) -> ImageBatch:
        with self._time_metric("width_time"):
            kept = [image for image in task.data if image.image_data.shape[1] <= self.max_width]
        self.seen += len(task.data)
        self._log_metrics({"seen": self.seen})
        return ImageBatch(
            data=kept, dataset_name=task.dataset_name, _metadata=task._metadata, _stage_perf=task._stage_perf
        )


class NothingPasses(ProcessingStage[ImageBatch, ImageBatch]):
    _name = "nothing_passes"

    def process(self, task: ImageBatch) -> ImageBatch | None:
        return None


class Grayscale(ProcessingStage[ImageBatch, ImageBatch]):
    name = "grayscale"

    def process_batch(self, tasks: list[ImageBatch]) -> list[ImageBatch]:
        for image in (image for task in tasks for image in task.data):
            gray = image.image_data.mean(axis=2).astype(np.uint8)
            image.image_data = np.stack([gray] * 3, axis=2)
        return tasks

    def process(self, task: ImageBatch) -> ImageBatch:
        raise NotImplementedError("use process_batch")


photos, output, models, choice = sys.argv[1:]
own = {"wide": WideFilter(max_width=600), "none": NothingPasses(), "gray": Grayscale()}[choice]
pipeline = Pipeline(
    name="own",
    stages=[
        FilePartitioningStage(photos, 4),
        ImageReaderStage(task_batch_size=2, verbose=False).with_(num_workers=1, batch_size=1),
        own.with_(resources=Resources(cpus=2.0), num_workers=4, xenna_stage_spec={"num_workers_per_node": 2}),
        ImageEmbeddingStage(models),
        ImageAestheticFilterStage(models, 0.25, 32, -100.0, False),
        ImageWriterStage(output_dir=output),
    ],
)
pipeline.build()
pipeline.run(initial_tasks=[EmptyTask])
'''


def run_as_user(script, *arguments, path=()):
    """Run a script by the command, in a process of its own."""
    source = str(Path(tastemaker.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), source])}
    command = [sys.executable, "-m", "tastemaker", "run", str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
