"""What every implementation of `Objects` must keep, as tests that an implementation inherits.

    class TestMine(ObjectsSuite):
        @pytest.fixture
        def objects(self, tmp_path):
            return MyObjects(tmp_path)

The fixture brings an empty store.
"""
# ruff: noqa: S101  # these are tests

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lrh_ray.store.objects import Objects

RACERS = 8


class ObjectsSuite:
    """The promises, one test each. A subclass brings the fixture `objects`: an empty store."""

    def test_what_was_put_is_there_whole_and_in_ranges(self, objects: Objects) -> None:
        tag = objects.put("a/b.json", b"0123456789")
        found = objects.get("a/b.json")
        assert found is not None
        assert (found.data, found.num_bytes, found.tag) == (b"0123456789", 10, tag)
        for start, length in ((0, 0), (0, 3), (4, 100), (9, None), (10, None), (50, 5)):
            part = objects.get("a/b.json", start, length)
            assert part is not None
            stop = None if length is None else start + length
            assert (part.data, part.num_bytes, part.tag) == (b"0123456789"[start:stop], 10, tag)

    def test_what_is_not_there_is_none(self, objects: Objects) -> None:
        assert objects.get("a/b") is None
        assert objects.get("a/b", 0, 0) is None
        assert not objects.delete("a/b") or not objects.stages  # object stores do not tell
        assert list(objects.list("a")) == []

    def test_create_changes_nothing_that_exists(self, objects: Objects) -> None:
        tag = objects.put("k", b"first")
        assert tag is not None
        assert objects.put("k", b"second") is None
        found = objects.get("k")
        assert found is not None
        assert (found.data, found.tag) == (b"first", tag)

    def test_replace_needs_the_version_that_stands(self, objects: Objects) -> None:
        first = objects.put("k", b"1")
        second = objects.put("k", b"22", over=first)
        assert second is not None
        assert second != first
        assert objects.put("k", b"333", over=first) is None
        assert objects.put("missing", b"4", over=first) is None
        found = objects.get("k")
        assert found is not None
        assert (found.data, found.tag) == (b"22", second)
        assert objects.get("missing") is None

    def test_an_empty_object_is_an_object(self, objects: Objects) -> None:
        assert objects.put("k", b"") is not None
        assert objects.put("k", b"1") is None
        found = objects.get("k")
        assert found is not None
        assert (found.data, found.num_bytes) == (b"", 0)

    def test_list_names_every_object_below_a_folder_and_no_other(self, objects: Objects) -> None:
        for key in ("a/1", "a/b/2", "ab/3", "c"):
            objects.put(key, key.encode())
        assert sorted((entry.key, entry.num_bytes) for entry in objects.list("a")) == [("a/1", 3), ("a/b/2", 5)]
        assert {entry.key for entry in objects.list("")} == {"a/1", "a/b/2", "ab/3", "c"}

    def test_delete_removes_one_object(self, objects: Objects) -> None:
        objects.put("a/1", b"1")
        objects.put("a/2", b"2")
        assert objects.delete("a/1")
        assert objects.get("a/1") is None
        assert objects.get("a/2") is not None
        assert objects.put("a/1", b"again") is not None

    def test_delete_asks_at_the_last_moment(self, objects: Objects) -> None:
        objects.put("k", b"1")
        assert not objects.delete("k", unless=lambda: True)
        assert objects.get("k") is not None

    def test_a_path_moves_or_is_uploaded(self, objects: Objects, tmp_path: Path) -> None:
        if objects.stages:
            objects.put("staging/x", b"rows")
            source = Path("staging/x")
        else:
            source = tmp_path / "upload"
            source.write_bytes(b"rows")
        assert objects.put("final/x", source) is not None
        found = objects.get("final/x")
        assert found is not None
        assert found.data == b"rows"
        assert objects.get("staging/x") is None
        if objects.stages:
            assert objects.put("final/x", source) is None  # moved already: nothing happens
            objects.put("staging/y", b"other")
            assert objects.put("final/x", Path("staging/y")) is not None  # a move replaces what stands

    def test_one_of_many_creators_wins(self, objects: Objects) -> None:
        with ThreadPoolExecutor(RACERS) as racers:
            tags = list(racers.map(lambda racer: objects.put("race", str(racer).encode()), range(RACERS)))
        (winner,) = [racer for racer, tag in enumerate(tags) if tag is not None]
        found = objects.get("race")
        assert found is not None
        assert (found.data, found.tag) == (str(winner).encode(), tags[winner])

    def test_one_of_many_replacers_wins_where_nothing_has_one_owner(self, objects: Objects) -> None:
        if objects.stages:
            pytest.skip("replacing has one owner where attempts are staged in the store")
        first = objects.put("race", b"first")
        with ThreadPoolExecutor(RACERS) as racers:
            tags = list(racers.map(lambda racer: objects.put("race", str(racer).encode(), over=first), range(RACERS)))
        (winner,) = [racer for racer, tag in enumerate(tags) if tag is not None]
        found = objects.get("race")
        assert found is not None
        assert found.data == str(winner).encode()
