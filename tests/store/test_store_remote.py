"""Every implementation of `Objects` keeps the promises; object stores behave like folders under the real writer."""

import pytest

from lrh_ray.errors import StoreConflict
from lrh_ray.store.commits import drop_block, pending_blocks, read_commit
from lrh_ray.store.objects import LocalObjects, open_objects
from lrh_ray.store.reader import open_store
from lrh_ray.store.remote import RemoteObjects, probe_conditions
from lrh_ray.store.seal import seal
from lrh_ray.testing.memory import MemoryObjects
from lrh_ray.testing.objects_suite import ObjectsSuite
from lrh_ray.testing.s3 import s3_server
from lrh_ray.testing.stores import fill, make_store, truth, write_block

LENGTHS = [5, 7, 6, 8]


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as url:
        yield url


class TestLocalObjects(ObjectsSuite):
    @pytest.fixture
    def objects(self, tmp_path):
        return LocalObjects(tmp_path / "store")


class TestRemoteObjects(ObjectsSuite):
    @pytest.fixture
    def objects(self, bucket, request):
        return open_objects(f"{bucket}/{request.node.name}")


class TestStagingMemory(ObjectsSuite):
    @pytest.fixture
    def objects(self):
        return MemoryObjects(stages=True)


class TestUploadedMemory(ObjectsSuite):
    @pytest.fixture
    def objects(self):
        return MemoryObjects(stages=False)


def test_a_copy_of_a_memory_store_goes_its_own_way():
    first = MemoryObjects(stages=True)
    first.put("k", b"1")
    twin = first.copy()
    assert twin.state() == first.state()
    twin.put("l", b"2")
    assert first.get("l") is None
    assert twin.state() != first.state()


def test_a_held_version_is_not_deleted_until_its_writer_lets_go():
    objects = MemoryObjects(stages=True)
    objects.stage("staging/x", b"rows", "writer")
    assert not objects.delete("staging/x")
    objects.release("writer")
    assert objects.delete("staging/x")


def test_a_service_that_honours_conditions_passes_the_probe_and_keeps_nothing(bucket):
    objects = open_objects(f"{bucket}/probe")
    probe_conditions(objects)
    assert list(objects.list("")) == []


class Careless(RemoteObjects):
    """A service that overwrites whatever it is told to leave alone."""

    def put(self, key, data, *, over=None):
        del over
        self.delete(key)
        return super().put(key, data)


def test_a_service_that_ignores_conditions_is_refused(bucket):
    honest = open_objects(f"{bucket}/careless")
    careless = Careless(honest.location, honest._store)
    with pytest.raises(StoreConflict, match="ignores conditional writes"):
        probe_conditions(careless)
    assert list(honest.list("")) == []


def test_a_remote_store_has_the_rows_and_the_root_of_a_local_one(bucket, tmp_path):
    roots = []
    for place in (tmp_path / "store", f"{bucket}/whole"):
        fake = make_store(place, LENGTHS)
        fill(fake)
        roots.append(seal(place, fake.plan, parity={})["root"])
        store = open_store(place)
        for block in range(fake.plan.num_blocks):
            for site in store.sites:
                assert store.block_rows(site, block).tobytes() == truth(fake.plan, site, block).tobytes()
    assert roots[0] == roots[1]


def test_the_first_remote_attempt_wins_and_a_dropped_block_is_computed_again(bucket):
    place = f"{bucket}/again"
    fake = make_store(place, LENGTHS)
    assert write_block(fake, 0, attempt="aa").committed
    assert not write_block(fake, 0, attempt="bb").committed
    drop_block(open_objects(place), 0)
    assert 0 in pending_blocks(open_objects(place), fake.plan)
    assert write_block(fake, 0, attempt="cc").committed
    assert read_commit(open_objects(place), 0).attempt == "cc"


def test_a_zombie_upload_after_the_seal_changes_nothing(bucket):
    place = f"{bucket}/zombie"
    fake = make_store(place, LENGTHS)
    fill(fake)
    root = seal(place, fake.plan, parity={})["root"]
    before = {entry.key: open_objects(place).get(entry.key).data for entry in open_objects(place).list("data.zarr")}
    assert not write_block(fake, 0, attempt="ff").committed
    after = {entry.key: open_objects(place).get(entry.key).data for entry in open_objects(place).list("data.zarr")}
    assert after == before
    assert seal(place, fake.plan, parity={})["root"] == root
