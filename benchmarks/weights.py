"""Resident memory while all tensors of large files of weights are read, one after another.

    python benchmarks/weights.py [--gigabytes 2] [--tensors 32] [--folder DIRECTORY]

Linux only; needs the peer extra (torch), to write what it saves. Of each format there is a file of float32 and one of
bfloat16; in a pickle all tensors are views of one storage. Safetensors files are one hole and take no disk. Each file
is read in a process of its own. Printed is by how much its resident memory, pages of mapped files included, was at most
above what it was before the file was opened.

On two cores of an AMD EPYC (Python 3.11, numpy 2.4), of files of 2000 MB with 32 tensors: 141 MB of float32, where a
tensor has 62 MB, and 219 MB of bfloat16, where it has 125 MB as float32; the same in both formats.
"""

import argparse
import json
import multiprocessing
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdjax.weights.files import open_weights

SIZES = {"float32": 4, "bfloat16": 2}
CODES = {"float32": "F32", "bfloat16": "BF16"}


def write_safetensors(folder: Path, dtype: str, tensors: int, length: int) -> None:
    """Writes tensors of ``length`` zeros."""
    size = SIZES[dtype] * length
    places = [[i * size, (i + 1) * size] for i in range(tensors)]
    entries = [{"dtype": CODES[dtype], "shape": [length], "data_offsets": place} for place in places]
    header = json.dumps({f"w{i}": entry for i, entry in enumerate(entries)}).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(file.tell() + tensors * size)


def write_pickle(folder: Path, dtype: str, tensors: int, length: int) -> None:
    """Writes tensors of ``length`` zeros that share their storage."""
    import torch  # here: what reads has no torch in its memory

    storage = torch.zeros(tensors, length, dtype=getattr(torch, dtype))
    torch.save({f"w{i}": row for i, row in enumerate(storage)}, folder / "pytorch_model.bin")


def read_all(folder: Path) -> int:
    """Returns by how many bytes resident memory was above what it is now, at most, while all tensors are read."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest so far
    before = _memory("VmRSS")
    for tensor in open_weights(folder).values():
        values = tensor.read()
        assert values.shape == tensor.shape
        assert not values.any()
        del values  # before the next one
    return _memory("VmHWM") - before


def _memory(what: str) -> int:
    match = re.search(rf"^{what}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])


def in_a_process(function: Callable, *arguments) -> Any:
    """Returns what a function returns in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Writes, reads and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--tensors", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="where the files are for a while")
    arguments = parser.parse_args()
    print(f"{'MB':<24}{'file':>8}{'tensor as float32':>20}{'memory at most':>18}")
    for write in (write_safetensors, write_pickle):
        for dtype, size in SIZES.items():
            length = int(arguments.gigabytes * 1e9 / size / arguments.tensors)
            with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
                folder = Path(name)
                in_a_process(write, folder, dtype, arguments.tensors, length)
                (file,) = folder.iterdir()
                counts = (file.stat().st_size, 4 * length, in_a_process(read_all, folder))
            of_file, of_tensor, memory = (round(count / 1e6) for count in counts)
            print(f"{file.suffix + ' ' + dtype:<24}{of_file:>8}{of_tensor:>20}{memory:>18}")


if __name__ == "__main__":
    main()
