"""The files of a cache: what is written comes back, and damage is noticed."""

import numpy as np
import pytest

from pdjax.distill.kept import Cut, Kept
from pdjax.errors import UserError
from pdjax.io.sealed import write_json
from pdjax.io.target_cache import Shard, TargetCache, kept_of, shard_of

RANDOM = np.random.default_rng(0)
NONE = -np.inf


def kept(counts, k):
    """Classes of 300 with a mass of their own, so many at each of some places, and the rest."""
    classes = RANDOM.integers(0, 300, (*counts.shape, k)).astype(np.int32)
    log_p = np.where(np.arange(k) < counts[..., None], RANDOM.normal(size=classes.shape) - 3, NONE).astype(np.float32)
    return Kept(classes, log_p, RANDOM.normal(size=counts.shape).astype(np.float32))


def evenly(counts, k):
    classes = np.tile(np.arange(k, dtype=np.int32) + 290, (*counts.shape, 1))
    log_p = np.where(np.arange(k) < counts[..., None], -np.log(counts, dtype=np.float32)[..., None], NONE)
    return Kept(classes, log_p.astype(np.float32), np.full(counts.shape, NONE, np.float32))


@pytest.fixture
def cache(tmp_path):
    cache = TargetCache(tmp_path / "answers", {"teacher": "abc", "cut": [8, 0.0, True]})
    cache.open()
    return cache


def assert_same(found, expected):
    here = expected.log_p > NONE
    np.testing.assert_array_equal(found.log_p, expected.log_p)
    np.testing.assert_array_equal(np.where(here, found.classes, 0), np.where(here, expected.classes, 0))


def test_the_most_likely_class_takes_three_bytes(cache):
    """Ties take more where there are some; all shards are read with one size."""
    cut = Cut(8, 0.0, True)
    few, some = np.ones((3, 4, 5), int), np.ones((3, 4, 5), int)
    some[1, 2, 3] = 3
    for begin, counts in ((0, few), (3, some)):
        cache.write(begin, shard_of(evenly(counts, 8), cut, 300))
    assert [cache.most(begin) for begin in (0, 3)] == [1, 3]
    shard = cache.read(0)
    assert sum(part.nbytes for part in shard if part is not None) == 3 * few.size
    assert cache.path(0).stat().st_size < 3 * few.size + 400
    for begin, counts in ((0, few), (3, some)):
        found = kept_of(cache.read(begin), 3)
        assert found.log_rest is None
        assert_same(found, Kept(*(part[..., :3] for part in evenly(counts, 8)[:2]), None))


def test_k_classes_and_the_rest_come_back(cache):
    expected = kept(np.full((2, 3), 4), 4)
    cache.write(6, shard_of(expected, Cut(4, 1.0, False), 70_000))
    found = kept_of(cache.read(6), 4)
    assert_same(found, expected)
    np.testing.assert_array_equal(found.log_rest, expected.log_rest)
    assert cache.read(6).classes.dtype == np.uint32


def read(cache):
    """Returns the shard, or why there is none."""
    try:
        return cache.read(0)
    except UserError as error:
        return str(error)


def test_damage_is_noticed(cache):
    cache.write(0, shard_of(evenly(np.ones((3, 4), int), 8), Cut(8, 0.0, True), 300))
    path = cache.path(0)
    sound = path.read_bytes()
    remedy = "remove it, and the same command computes it again"
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        found = read(cache)
        if isinstance(found, str):
            assert str(path) in found
            assert remedy in found
        else:  # white space that pads the header
            np.testing.assert_array_equal(found.classes, np.full((3, 4, 1), 290))
    for content in (sound[:-1], b""):
        path.write_bytes(content)
        for look in (cache.read, cache.most):
            with pytest.raises(UserError, match="a whole file"):
                look(0)
    path.unlink()
    with pytest.raises(UserError, match="a whole file"):
        cache.read(0)


def test_a_cache_is_of_one_thing(cache, tmp_path):
    again = TargetCache(tmp_path / "answers", {"cut": [8, 0.0, True], "teacher": "abc"})
    again.open()
    assert again.directory == cache.directory
    assert TargetCache(tmp_path / "answers", {"teacher": "other"}).directory != cache.directory
    write_json(cache.directory / "identity.json", {})
    with pytest.raises(UserError, match="the identity of this cache"):
        cache.open()


def test_half_a_shard_is_none(cache, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.write(0, Shard(np.zeros((1, 1), np.uint8), np.ones(1, np.uint8), None, None))
    assert not cache.has(0)
