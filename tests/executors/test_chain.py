"""A chain: loaded once, run often, and the same results one batch at a time."""

import threading

import pytest
from conftest import make_tar
from test_local import Count, Work

from tastemaker import FileGroupTask, FilePartitioningStage, ImageReaderStage, StageError
from tastemaker.executors.base import StageCount
from tastemaker.executors.chain import Chain


class Loaded(Work):
    """Counts its set-ups."""

    def setup(self, worker_metadata=None):
        vars(self).setdefault("events", []).append("setup")

    def teardown(self):
        self.events.append("teardown")


def test_results_are_grouped_by_initial_task_also_where_there_are_none():
    class Repeat(Work):
        def stream(self, task):
            yield from [task] * int(task.data[0])

    tasks = [FileGroupTask("t", [str(number)]) for number in (2, 0, 3)]
    for concurrent in (1, 3):
        chain = Chain([Repeat(), Work().with_(concurrent_tasks=concurrent)])
        assert [len(results) for results in chain.run(tasks)] == [2, 0, 3]


def test_stages_stay_loaded_from_run_to_run():
    stage = Loaded()
    chain = Chain([Count(3), stage])
    chain.setup()
    for _ in range(3):
        assert [len(results) for results in chain.run([FileGroupTask("t", ["0"])])] == [3]
    chain.teardown()
    assert stage.events == ["setup", "teardown"]


def test_the_next_task_is_begun_while_the_last_is_finished():
    begun = threading.Event()

    def tasks():
        yield FileGroupTask("t", ["0"])
        begun.set()
        yield FileGroupTask("t", ["1"])

    def wait(number):
        assert begun.wait(5)

    assert len(list(Chain([Work(), Work(wait)]).run(tasks()))) == 2


def test_counts_name_the_task_and_the_stage(tmp_path, photographs):
    shards = [make_tar(tmp_path / f"{n}.tar", list(photographs.items())[: n + 1]) for n in range(3)]
    chain, counted = Chain([ImageReaderStage(batch_size=2), Work()]), []
    tasks = [FileGroupTask("t", [str(shard)]) for shard in shards]
    list(chain.run(tasks, lambda position, count: counted.append((position, count))))
    for stage in ("image_reader", "work"):
        images = [sum(c.images for p, c in counted if (p, c.stage) == (task, stage)) for task in range(3)]
        assert images == [1, 2, 3]
    assert all(isinstance(count, StageCount) and count.source_bytes > 0 for _, count in counted)


def compare(batches):
    return [
        [(i.image_id, i.failed, i.reason, None if i.model_input is None else i.model_input.tobytes()) for i in images]
        for batch in batches
        for images in (batch.data, batch.dropped)
    ]


def test_one_batch_at_a_time_gives_the_same_batches(tmp_path, photographs):
    members = [*photographs.items(), ("cut.jpg", photographs["rocket.jpg"][:5000]), ("text.jpg", b"none")]
    shard = make_tar(tmp_path / "a.tar", members)
    empty = make_tar(tmp_path / "b.tar", [])
    for path in (shard, empty):
        task, told = FileGroupTask("t", [str(path)], task_id="7"), []
        chain = Chain([ImageReaderStage(batch_size=3)])
        chain.setup()
        (usual,) = chain.run([task])

        def watch(kind, number, names, told=told):
            if kind == "batch":
                told.append((number, names()))

        careful = chain.run_carefully(task, watch)
        assert compare(careful) == compare(usual)
        assert [batch._metadata for batch in careful] == [batch._metadata for batch in usual]
        keys = [[i.image_id for i in sorted([*b.data, *b.dropped], key=lambda i: i.index)] for b in usual]
        assert told == list(enumerate(keys))
        chain.teardown()


def deadly_at(kind, number):
    return lambda *step: "deadly" if step[:2] == (kind, number) else None


def test_a_batch_with_a_reason_fails_undecoded_and_the_others_do_not(tmp_path, photographs):
    shard = make_tar(tmp_path / "a.tar", list(photographs.items()))
    chain = Chain([ImageReaderStage(batch_size=2)])
    chain.setup()
    batches = chain.run_carefully(FileGroupTask("t", [str(shard)]), deadly_at("batch", 1))
    assert [len(batch.data) for batch in batches] == [2, 0, 2]
    assert [(image.failed, image.reason, image.width) for image in batches[1].dropped] == [(True, "deadly", None)] * 2


def test_batches_of_a_reader_of_the_users_own_are_announced_too(tmp_path, photographs):
    class Own(ImageReaderStage):
        def stream(self, task):
            yield from self._stream_one_by_one(task, lambda *_: None)

    shard = make_tar(tmp_path / "a.tar", list(photographs.items()))
    chain = Chain([Own(batch_size=4)])
    chain.setup()
    batches = chain.run_carefully(FileGroupTask("t", [str(shard)]), deadly_at("batch", 1))
    assert [(len(batch.data), len(batch.dropped)) for batch in batches] == [(4, 0), (0, 2)]


def test_a_shard_with_a_reason_ends_there_with_a_failed_row_and_the_next_one_is_read(tmp_path, photographs):
    shards = [make_tar(tmp_path / f"{n}.tar", list(photographs.items())) for n in range(2)]
    chain = Chain([ImageReaderStage(batch_size=4)])
    chain.setup()
    task = FileGroupTask("t", list(map(str, shards)))
    batches = chain.run_carefully(task, deadly_at("reading", 3))
    images = sorted((i for b in batches for i in (*b.data, *b.dropped)), key=lambda image: image.index)
    keys = [name.rpartition(".")[0] for name in photographs]
    assert [image.image_id for image in images] == [*keys[:3], "", *keys]
    assert [(image.image_path, image.reason) for image in images if image.failed] == [
        (str(shards[0]), "unreadable: deadly")
    ]


def test_a_loose_image_with_a_reason_fails_unread_and_the_others_do_not(photo_folder):
    (task,) = FilePartitioningStage(str(photo_folder)).process()
    chain = Chain([ImageReaderStage(batch_size=4)])
    chain.setup()
    (usual,) = chain.run([task])
    told = []

    def watch(kind, number, names):
        if kind == "reading":
            told.append(names()[0])
        return "deadly" if kind == "reading" and names() == [str(photo_folder / "coffee.png")] else None

    careful = chain.run_carefully(task, watch)
    everything = [sorted((*b.data, *b.dropped), key=lambda i: i.index) for b in careful]
    assert [[i.image_id for i in batch] for batch in everything] == [[i.image_id for i in b.data] for b in usual]
    failed = [image for batch in everything for image in batch if image.failed]
    assert [(image.image_path, image.shard, image.reason) for image in failed] == [
        (str(photo_folder / "coffee.png"), "", "unreadable: deadly")
    ]
    assert set(told) == set(task.data)


def test_a_first_stage_whose_turn_has_a_reason_is_an_error():
    with pytest.raises(StageError, match="0: deadly"):
        Chain([Count(3)]).run_carefully(FileGroupTask("t", ["0"]), deadly_at("making", 1))


def test_an_error_is_the_same_one_batch_at_a_time():
    def fail(number):
        raise ValueError("no")

    with pytest.raises(StageError, match="stage 'picky' failed on 0: no"):
        Chain([Count(3), Work(fail, "picky")]).run_carefully(FileGroupTask("t", ["0"]), lambda *_: None)
