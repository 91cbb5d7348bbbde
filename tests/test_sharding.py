import jax

from pdjax import sharding


def test_mesh_uses_as_many_devices_as_divide_the_replicas():
    assert len(jax.local_devices()) == 4
    sizes = {r: sharding.replica_mesh(r).shape["replica"] for r in (1, 2, 3, 4, 5, 6, 8)}
    assert sizes == {1: 1, 2: 2, 3: 3, 4: 4, 5: 1, 6: 3, 8: 4}
