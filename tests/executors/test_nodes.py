"""A machine of the cluster is lost, and the rows are the same."""

import threading
import time

import pytest
from cluster_stages import ENGINES, Diary, contents, make_stages, read_diary, write_shards

from tastemaker import LocalExecutor, Pipeline

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")


@pytest.fixture
def two_nodes(monkeypatch):
    """The address of a cluster of two machines with a core each, the second machine, and the cluster."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, second
    cluster.shutdown()


@pytest.mark.parametrize("engine", ["xenna", "ray-data"])
def test_a_machine_that_is_lost_changes_nothing(engine, two_nodes, tmp_path, photographs, model_dir):
    import ray

    cluster, second = two_nodes
    shards, output, diary = (
        write_shards(tmp_path / "shards", photographs, shards=8),
        tmp_path / "out",
        tmp_path / "diary",
    )
    stages = make_stages(shards, model_dir, output, Diary(str(diary), pause_s=0.3))
    stages[1:] = [stage.with_(resources=type(stage.resources)(cpus=0.2)) for stage in stages[1:]]

    def lose():
        while len({pid for pid, *_ in read_diary(diary, "process")}) < 2:
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)

    loser = threading.Thread(target=lose, daemon=True)
    loser.start()
    results = Pipeline("p", stages=stages).run(ENGINES[engine]())
    loser.join(5)

    assert not loser.is_alive()
    assert len({node for node, _ in read_diary(diary, "node")}) == 2  # weights were fetched once on each
    assert not ray.is_initialized()
    written = contents(output)
    output.rename(tmp_path / "there")
    stages[2].path = str(tmp_path / "diary-here")
    expected = Pipeline("p", stages=stages).run(LocalExecutor())
    assert written == contents(output)
    assert [task.data for task in results] == [task.data for task in expected]
