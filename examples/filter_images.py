"""Filter images by aesthetic quality: the whole pipeline as a script.

    python examples/filter_images.py shards/ best/ --score-threshold 5.5

Reads tar shards or image folders, keeps what reaches the threshold, and writes the kept originals with their captions
as tars, and a Parquet row for every image, to the output directory.
"""

import argparse
import logging

from tastemaker import (
    FilePartitioningStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    ImageWriterStage,
    Pipeline,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", help="folder of tars or images, a file, or a glob")
    parser.add_argument("output", help="directory of the results")
    parser.add_argument("--score-threshold", type=float, default=5.5)
    parser.add_argument("--model-dir", help="default: $TASTEMAKER_MODEL_DIR, else the user's cache directory")
    parser.add_argument("--batch-size", type=int, default=100, help="images in a batch")
    parser.add_argument("--images-per-tar", type=int, default=1000)
    parser.add_argument("--verbose", action="store_true", help="log every image that is dropped")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    pipeline = Pipeline(name="aesthetic_filtering", description="Filter images by aesthetic quality")
    pipeline.add_stage(FilePartitioningStage(file_paths=arguments.input))
    pipeline.add_stage(ImageReaderStage(batch_size=arguments.batch_size, verbose=arguments.verbose))
    pipeline.add_stage(ImageEmbeddingStage(model_dir=arguments.model_dir))
    pipeline.add_stage(
        ImageAestheticFilterStage(
            model_dir=arguments.model_dir, score_threshold=arguments.score_threshold, verbose=arguments.verbose
        )
    )
    pipeline.add_stage(ImageWriterStage(arguments.output, images_per_tar=arguments.images_per_tar))
    print(pipeline.describe())

    for written in pipeline.run():
        print(f"{written.partition.name}: {written._metadata['counts']} -> {', '.join(written.data)}")


if __name__ == "__main__":
    main()
