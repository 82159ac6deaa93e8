"""Groups of near-duplicates: time, and recall of pairs against exact search; usearch for comparison, if installed.

    python benchmarks/groups.py [--rows 100000] [--min-similarity 0.95] [--sample 2000]

The embeddings are synthetic, shaped like CLIP's: a cone (mean cosine 0.5), topics in it, a falling spectrum, and 30% of
the rows near-duplicates of another (cosine 0.95 to 0.99).
"""

import argparse
import time
from importlib.util import find_spec

import numpy as np
from common import print_machine

from tastemaker.scores import groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--min-similarity", type=float, default=groups.MIN_SIMILARITY)
    parser.add_argument("--sample", type=int, default=2000)
    arguments = parser.parse_args()
    print_machine("numpy", "faiss-cpu", "usearch")
    embeddings = clip_like(arguments.rows)
    sample = np.sort(np.random.default_rng(1).choice(arguments.rows, arguments.sample, replace=False))
    exact = exact_pairs(embeddings, sample, arguments.min_similarity)
    print(f"{arguments.rows:,} embeddings, {len(exact):,} pairs of {arguments.sample:,} rows in exact search")

    started, worked = time.perf_counter(), time.process_time()
    found = groups.group_duplicates(embeddings, min_similarity=arguments.min_similarity)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    print(f"\ngroup_duplicates   {seconds:6.1f} s ({cpu:.0f} s of processor), {len(np.unique(found)):,} groups")
    started = time.perf_counter()
    index = groups._IndexSearch(embeddings, np.arange(arguments.rows))
    built = time.perf_counter() - started
    pairs = index_pairs(index, sample, arguments.min_similarity)
    print(f"  its index        {built:6.1f} s to build, recall of pairs {recall(pairs, exact):.4f}")
    again = groups.group_duplicates(embeddings, min_similarity=arguments.min_similarity)
    print(f"  a second time    {'the same groups' if (found == again).all() else 'OTHER GROUPS'}")
    if find_spec("usearch"):
        for threads in (1, 0):
            measure_usearch(embeddings, sample, exact, arguments.min_similarity, threads)


def measure_usearch(embeddings, sample, exact, min_similarity, threads):
    from usearch.index import Index

    started = time.perf_counter()
    index = Index(ndim=embeddings.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=64)
    index.add(np.arange(len(embeddings)), embeddings, threads=threads)
    built = time.perf_counter() - started
    matches = index.search(embeddings, 16)
    seconds = time.perf_counter() - started
    near = matches.distances[sample] <= 1 - min_similarity
    rows = np.repeat(sample, near.sum(1))
    pairs = set(zip(rows.tolist(), matches.keys[sample][near].astype(np.int64).tolist(), strict=True))
    name = "one thread" if threads == 1 else "all threads"
    print(f"usearch, {name:12} {seconds:5.1f} s, {built:.1f} s to build, recall of pairs {recall(pairs, exact):.4f}")


def clip_like(rows: int, seed: int = 0) -> np.ndarray:
    """Return float16 (rows, 768) of unit length."""
    rng = np.random.default_rng(seed)
    spectrum = ((1 + np.arange(768)) ** -0.5).astype(np.float32)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def noise(count):
        return unit(rng.standard_normal((count, 768), np.float32) * spectrum)

    topics = noise(max(10, rows // 200))
    own = rng.integers(0, len(topics), rows)
    mean = unit(rng.standard_normal((1, 768), np.float32))
    vectors = unit(0.5**0.5 * mean + 0.5 * topics[own] + 0.5 * noise(rows))
    copies = rng.choice(rows, int(0.3 * rows), replace=False)
    originals = vectors[rng.choice(np.setdiff1d(np.arange(rows), copies), len(copies))]
    cosine = rng.uniform(0.95, 0.99, (len(copies), 1)).astype(np.float32)
    change = noise(len(copies))
    change = unit(change - (change * originals).sum(1, keepdims=True) * originals)
    vectors[copies] = cosine * originals + np.sqrt(1 - cosine**2) * change
    return vectors.astype(np.float16)


def exact_pairs(embeddings: np.ndarray, sample: np.ndarray, min_similarity: float) -> set[tuple[int, int]]:
    everything = groups._unit(embeddings, np.arange(len(embeddings)))
    pairs = set()
    for part in np.array_split(sample, max(1, len(sample) // 200)):
        rows, near = np.nonzero(everything[part] @ everything.T >= min_similarity)
        pairs |= {(int(a), int(b)) for a, b in zip(part[rows], near, strict=True) if a < b}
    return pairs


def index_pairs(index, sample: np.ndarray, min_similarity: float) -> set[tuple[int, int]]:
    """Return the pairs that the index finds from a row of the sample to one behind it: what the groups are made of."""
    limits, near = index.near(sample, min_similarity)
    owners = np.repeat(sample, np.diff(limits))
    return set(zip(owners.tolist(), near.tolist(), strict=True))


def recall(found: set[tuple[int, int]], exact: set[tuple[int, int]]) -> float:
    return len(found & exact) / max(1, len(exact))


if __name__ == "__main__":
    main()
