"""How rows lie on disk: a TFDS data set in array_record, which this module alone knows.

TFDS's own writer gathers a split in memory, up to 1 GB, and beyond that needs TensorFlow. This builder writes shards as
rows come. What it leaves is an ordinary data set: ``tfds.builder_from_directory`` opens it, as it does any other.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from jaxtyping import Int, UInt8
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from pdjax.errors import UserError, require

NAME = "rows"
VERSION = "1.0.0"

BYTES_PER_SHARD = 2**28

Write = Callable[[Int[np.ndarray, "N L"], UInt8[np.ndarray, "N L"]], None]
"""Takes tokens and segments of a split's next rows."""


def write_rows(
    directory: Path,
    length: int,
    dtype: np.dtype,
    splits: Iterable[str],
    fill: Callable[[Mapping[str, Write]], None],
) -> None:
    """Writes a data set into ``directory``/rows/<version>, with every split's rows in the order that they come.

    Args:
      directory: exists; has no data set.
      length: places of a row.
      dtype: of tokens.
      splits: their names.
      fill: is called once, with what takes the rows of each split; gives each at least one.
    """
    tfds.disable_progress_bar()
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # TFDS says where it writes
        builder = _Builder(directory, length, dtype, splits, fill)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


class RowReader:
    """Reads rows of a data set by their numbers.

    Args:
      directory: what was given to ``write_rows``.
      length: places of a row.
      dtype: of tokens.

    Raises:
      UserError: there is no such data set.
    """

    def __init__(self, directory: Path, length: int, dtype: np.dtype):
        self._path = directory / NAME / VERSION
        try:
            self._builder: Any = tfds.builder_from_directory(self._path)
        except Exception as error:  # of whatever kind: TFDS reads files that may be anything
            raise UserError(
                f"a TFDS data set in {self._path}", f"none that opens ({error})", "prepare it again"
            ) from error
        self._record = _Record(length, dtype)
        self._sources: dict[str, Any] = {}

    def num_rows(self, split: str) -> int:
        """Returns the number of a split's rows."""
        return self._builder.info.splits[split].num_examples

    def read(self, split: str, rows: Sequence[int]) -> tuple[Int[np.ndarray, "N L"], UInt8[np.ndarray, "N L"]]:
        """Returns tokens and segments of rows, in the order asked for.

        Raises:
          RuntimeError: a file is damaged; array_record's own checksums say so.
        """
        if split not in self._sources:
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            self._sources[split] = self._builder.as_data_source(split=split, deserialize_method=raw)
        return self._record.unpack(self._sources[split].__getitems__(list(rows)))


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes splits as they are filled, all in one pass."""

    VERSION = tfds.core.Version(VERSION)
    name = NAME
    pkg_dir_path = epath.Path(__file__).parent  # of descriptions of the data set, which has none
    code_path = None  # nothing is downloaded: no checksums lie beside the code

    def __init__(
        self,
        directory: Path,
        length: int,
        dtype: np.dtype,
        splits: Iterable[str],
        fill: Callable[[Mapping[str, Write]], None],
    ):
        self._features, self._record = _features(length, dtype), _Record(length, dtype)
        self._names, self._fill = tuple(splits), fill
        super().__init__(data_dir=directory, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        # Not shuffled: rows are numbered as they were made.
        return tfds.core.DatasetInfo(builder=self, features=self._features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> Any:
        raise NotImplementedError("_generate_splits does without")

    def _generate_examples(self, **kwargs: Any) -> Any:
        raise NotImplementedError("_generate_splits does without")

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        writers = {name: _SplitWriter(self._get_filename_template(name), self._record) for name in self._names}
        self._fill({name: writer.write for name, writer in writers.items()})
        return [writer.finish() for writer in writers.values()]


class _SplitWriter:
    """Writes the shards of a split; their number, which their names have, is known at the end alone."""

    def __init__(self, template: Any, record: "_Record"):
        self._template, self._record = template, record
        self._lengths: list[int] = []
        self._writer: Any = None

    def write(self, tokens: Int[np.ndarray, "N L"], segments: UInt8[np.ndarray, "N L"]) -> None:
        """Takes the next rows."""
        for record in self._record.pack(tokens, segments):
            if self._writer is None:
                self._lengths.append(0)
                self._writer = ArrayRecordWriter(os.fspath(self._partial(len(self._lengths) - 1)), "group_size:1")
            self._writer.write(record)
            self._lengths[-1] += 1
            if self._lengths[-1] * len(record) >= BYTES_PER_SHARD:
                self._close()

    def finish(self) -> tfds.core.SplitInfo:
        """Ends the last shard; returns what TFDS keeps of a split."""
        self._close()
        for shard in range(len(self._lengths)):
            final = self._template.sharded_filepath(shard_index=shard, num_shards=len(self._lengths))
            os.replace(self._partial(shard), final)
        size = sum(self._lengths) * self._record.size
        return tfds.core.SplitInfo(
            name=self._template.split, shard_lengths=self._lengths, num_bytes=size, filename_template=self._template
        )

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _partial(self, shard: int) -> Path:
        return Path(self._template.data_dir) / f"{self._template.split}-{shard}.partial"


class _Record:
    """A row as bytes: what TFDS writes of it, whose parts have fixed places as their sizes are fixed.

    TFDS takes 45 µs to write a row and 30 µs to read one; here both take a few, for many rows at once.
    """

    def __init__(self, length: int, dtype: np.dtype):
        self._dtype = dtype
        features: Any = _features(length, dtype)
        serializer = ExampleSerializer(features.get_serialized_info())

        def written(fill: int) -> np.ndarray:
            parts = {"tokens": np.full(length * dtype.itemsize, fill, np.uint8).view(dtype)}
            parts["segments"] = np.full(length, fill, np.uint8)
            # Without ``deterministic`` the order of a map differs from process to process.
            example = serializer.get_tf_example(features.encode_example(parts))
            return np.frombuffer(example.SerializeToString(deterministic=True), np.uint8)

        self._frame = written(0)
        self._fixed = self._frame == written(255)
        places = np.flatnonzero(~self._fixed)
        # In the order of their names.
        self._segments, self._tokens = places[:length], places[length:]
        self.size = len(self._frame)

    def pack(self, tokens: Int[np.ndarray, "N L"], segments: UInt8[np.ndarray, "N L"]) -> Iterator[bytes]:
        """Yields rows as bytes."""
        records = np.tile(self._frame, (len(tokens), 1))
        records[:, self._segments] = segments
        records[:, self._tokens] = np.ascontiguousarray(tokens, self._dtype).view(np.uint8)
        return (record.tobytes() for record in records)

    def unpack(self, records: Sequence[bytes]) -> tuple[Int[np.ndarray, "N L"], UInt8[np.ndarray, "N L"]]:
        """Returns tokens and segments of rows."""
        require(
            all(len(record) == self.size for record in records),
            f"rows of {self.size} bytes",
            "others",
            "prepare the corpus again",
        )
        bytes_of = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), self.size)
        whole = (bytes_of[:, self._fixed] == self._frame[self._fixed]).all()
        require(bool(whole), "rows that this package wrote", "others", "prepare the corpus again")
        tokens = np.ascontiguousarray(bytes_of[:, self._tokens]).view(self._dtype)
        return tokens, bytes_of[:, self._segments]


def _features(length: int, dtype: np.dtype) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "tokens": tfds.features.Tensor(shape=(length,), dtype=dtype, encoding="bytes"),
            "segments": tfds.features.Tensor(shape=(length,), dtype=np.uint8, encoding="bytes"),
        }
    )
