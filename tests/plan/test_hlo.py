"""Work counted from the text of a compiled module, by hand and of a real program."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pdjax.plan.hlo import Work, count_work
from pdjax.types import SELDOM

TEXT = """HloModule jit_chunk, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[8]{0} negate(%x)
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %f = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[8]{0}) tuple(%x, %f)
}

%bound (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %three = s32[]{:T(128)} constant(3)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %three), direction=LT
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %w = (s32[], f32[8]{0}) while(%p), condition=%bound, body=%inner
  %g = f32[8]{0} get-tuple-element(%w), index=1
  %r = bf16[4,2]{1,0} all-reduce(%g), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %s = (f32[8]{0}, f32[16]{0}) all-gather-start(%g), dimensions={0}
  %d = f32[16]{0} all-gather-done(%s)
  ROOT %t = (s32[], f32[8]{0}) tuple(%r, %d)
}

%many (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %one = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %two = f32[8]{0} fusion(%one), kind=kLoop, calls=%fused
}

%few (x: f32[8]) -> f32[8] {
  ROOT %x = f32[8]{0} parameter(0)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %w = (s32[], f32[8]{0}) while(%p), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  %k = f32[8]{0} conditional(%i, %p, %p), branch_computations={%few, %many}
  ROOT %c = f32[8]{0} copy(%k)
}
"""


def test_loops_branches_and_halves_of_collectives():
    """10 x (3 fusions + 2 collectives), the branch of 2 fusions, and a copy; a start counts, its done does not."""
    expected = Work(
        kernels=10 * 5 + 2 + 1,
        collectives=20,
        collective_bytes=10 * (16 + 64),
        traffic=10 * (3 * 64 + 2 * (16 + 64)) + 2 * 64 + 64,  # each kernel reads and writes 8 floats
    )
    assert count_work(TEXT) == expected


def test_of_a_branch_that_runs_seldom_nothing_counts():
    line = "branch_computations={%few, %many}"
    named = TEXT.replace(line, f'{line}, metadata={{op_name="jit(chunk)/while/body/{SELDOM}/cond" stack_frame_id=7}}')
    assert count_work(TEXT).kernels - count_work(named).kernels == 2
    within = TEXT.replace(line, f'{line}, metadata={{op_name="jit(chunk)/{SELDOM}/cond/branch_0_fun/cond"}}')
    assert count_work(within) == count_work(TEXT)  # another condition, in one of its branches


MEMORY = """HloModule jit_step, is_scheduled=true

%pick (all: f32[100,16], i: s32[]) -> f32[16] {
  %all = f32[100,16]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %row = f32[1,16]{1,0} dynamic-slice(%all, %i, %i), dynamic_slice_sizes={1,16}
  ROOT %flat = f32[16]{0} bitcast(%row)
}

%log (kept: f32[100,16], new: f32[1,16]) -> f32[100,16] {
  %kept = f32[100,16]{1,0} parameter(0)
  %new = f32[1,16]{1,0} parameter(1)
  ROOT %put = f32[100,16]{1,0} dynamic-update-slice(%kept, %new, %zero, %zero)
}

%double (x: f32[16]) -> f32[16] {
  %x = f32[16]{0} parameter(0)
  ROOT %twice = f32[16]{0} add(%x, %x)
}

ENTRY %main (stack: f32[100,16], i: s32[]) -> f32[100,16] {
  %stack = f32[100,16]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  %one = f32[16]{0:T(128)} fusion(%stack, %i), kind=kLoop, calls=%pick
  %fast = f32[16]{0:T(128)S(1)} fusion(%one), kind=kLoop, calls=%double
  %two = f32[1,16]{1,0:T(128)} fusion(%fast), kind=kLoop, calls=%double
  %hidden = f32[16]{0} custom-call(%two), custom_call_target="ConcatBitcast"
  ROOT %out = f32[100,16]{1,0:T(8,128)} fusion(%stack, %two), kind=kLoop, calls=%log
}
"""


def test_memory_that_kernels_touch():
    """A row read and written, in two kernels once on the chip, and a row that another array's row is replaced by."""
    row, index = 64, 4
    picked = row + row  # `index` is used by the slice alone, as a place
    doubled = row + 0 + 0 + row
    logged = row + row
    assert count_work(MEMORY).traffic == picked + index + doubled + logged


def test_memory_of_a_real_product():
    """The arguments and the result of a product, which fit no cache that XLA would know of."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((512, 256), (256, 1024))]
    text = jax.jit(jnp.dot).lower(*shapes).compile().as_text()
    least = 4 * (512 * 256 + 256 * 1024 + 512 * 1024)
    assert least <= count_work(text).traffic <= 1.5 * least


def test_a_real_program_on_a_mesh():
    mesh = Mesh(jax.devices()[:4], ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))

    def loop(x):
        return jax.lax.scan(lambda c, _: (c + jnp.sum(x * c), None), 1.0, None, length=6)[0]

    text = jax.jit(loop).lower(jax.ShapeDtypeStruct((8,), jnp.float32, sharding=split)).compile().as_text()
    work = count_work(text)
    assert work.collectives in (6, 7)  # one sum a step; XLA may peel
    assert work.collective_bytes == 4 * work.collectives
