"""Small texts of made-up words, as every kind of source."""

import contextlib
import gzip
import io
import json
import logging
import os
import random

import numpy as np
import pytest
import zstandard

from pdjax.text.__main__ import main
from pdjax.text.prepare import Preparation, prepare
from pdjax.text.sources import Source

SYLLABLES = ("ba", "ti", "no", "ku", "re", "sho", "ill", "and", "er", "qu", "ax", "om")


@pytest.fixture(scope="session")
def made_up():
    """Returns documents of made-up words, of 1 to 300 of them."""

    def make(count, seed=0):
        chance = random.Random(seed)
        words = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 3))) for _ in range(200)]
        # Some are frequent, as in any language, and some text is neither lower case nor ASCII.
        texts = [
            " ".join(chance.choices(words, range(len(words), 0, -1), k=chance.randint(1, 300))) for _ in range(count)
        ]
        return [f"{text.capitalize()}.\nÉtude, it's {number}!\n" for number, text in enumerate(texts)]

    return make


@pytest.fixture
def folder(tmp_path):
    """Writes files with their contents into a folder; returns its path."""

    def make(name, files):
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / name)

    return make


@pytest.fixture
def texts_in(folder):
    """Writes each document as a file."""

    def make(name, documents):
        return folder(name, {f"{number:04}.txt": text for number, text in enumerate(documents)})

    return make


def json_lines(documents, field="text"):
    return "".join(json.dumps({field: text, "id": number}) + "\n" for number, text in enumerate(documents))


@pytest.fixture(scope="session")
def packed():
    """Compresses bytes."""
    return {"gz": gzip.compress, "zst": lambda content: zstandard.ZstdCompressor().compress(content)}


@pytest.fixture(scope="session")
def lines_of():
    """Returns documents as JSON lines."""
    return json_lines


@pytest.fixture(scope="session")
def tfds_of():
    """Prepares documents as a TFDS data set, as any of its own of natural language; returns its directory."""

    def make(root, documents, file_format="array_record", feature="text", split="train"):
        import tensorflow_datasets as tfds
        from etils import epath

        class Wiki(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = epath.Path(__file__).parent
            code_path = None

            def _info(self):
                features = {feature: tfds.features.Text(), "number": np.int64}
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples()}

            def _generate_examples(self):
                for number, text in enumerate(documents):
                    yield number, {feature: text, "number": number}

        tfds.disable_progress_bar()
        builder = Wiki(data_dir=root, file_format=file_format)
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        return builder.data_dir

    return make


@pytest.fixture(scope="session")
def preparation():
    """Returns what a corpus of one source is made of, with other settings where they are given."""

    def make(path, name="prose", **others):
        of_source = {key: others.pop(key) for key in ("documents", "field") if key in others}
        given = {"vocabulary": 200, "length": 16, "held_out": 0.3} | others
        return Preparation((Source(name, path, **of_source),), **given)

    return make


@pytest.fixture
def corpus(tmp_path, texts_in, made_up):
    """A corpus of two sources."""
    sources = tuple(
        Source(name, texts_in(name, made_up(count, seed))) for seed, (name, count) in enumerate((("a", 40), ("b", 15)))
    )
    return prepare(tmp_path / "corpus", Preparation(sources, 200, 16, held_out=0.3))


@pytest.fixture
def command():
    """Calls the command line in this process; returns the exit code, what it printed and what it logged."""

    def run(*arguments):
        printed, logged = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(logged):
            try:
                code = main([str(argument) for argument in arguments])
            finally:
                logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        return code, printed.getvalue(), logged.getvalue()

    return run
