"""A machine of the cluster is lost, and the rows are the same."""

import threading
import time

import pytest
from cluster_stages import ENGINES, Diary, make_stages, read_diary, write_shards
from conftest import contents

from tastemaker import LocalExecutor, Pipeline, RayDataExecutor, XennaExecutor

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")


@pytest.fixture
def two_nodes(monkeypatch):
    """The address of a cluster of two machines with a core each, the second machine, and the cluster."""
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on the loopback address only, as ray_session does
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
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


def test_no_worker_runs_beside_ray_s_own_services_if_that_is_asked_for(two_nodes, tmp_path, photographs, model_dir):
    _, second = two_nodes
    shards = write_shards(tmp_path / "shards", photographs, shards=3, images=2)
    for engine in (XennaExecutor, RayDataExecutor):
        diary = tmp_path / engine.__name__
        stages = make_stages(shards, model_dir, tmp_path / "out", Diary(str(diary)))
        stages[1:] = [stage.with_(resources=type(stage.resources)(cpus=0.2)) for stage in stages[1:]]
        Pipeline("p", stages=stages).run(engine(ignore_head_node=True))
        assert [node for node, _ in read_diary(diary, "node")] == [second.node_id]
        assert len(read_diary(diary, "process")) == 3


def test_up_to_four_workers_share_a_gpu_and_machines_without_one_get_none(two_nodes, tmp_path, photographs, model_dir):
    cluster, _ = two_nodes
    with_gpu = cluster.add_node(num_cpus=4, num_gpus=1)  # Ray takes our word for it; Xenna would look for the device
    diary = tmp_path / "diary"
    shards = write_shards(tmp_path / "shards", photographs, shards=12, images=2)
    stages = make_stages(shards, model_dir, tmp_path / "out", Diary(str(diary), pause_s=0.5))
    stages[3] = stages[3].with_(resources=type(stages[3].resources)(cpus=0.1, gpus=0.25))
    Pipeline("p", stages=stages).run(RayDataExecutor())
    assert {node for node, _ in read_diary(diary, "node")} == {with_gpu.node_id}
    assert 1 < len({pid for pid, *_ in read_diary(diary, "process")}) <= 4
    assert len(read_diary(diary, "process")) == 12
