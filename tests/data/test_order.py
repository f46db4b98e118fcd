"""The order of images: all of them once, another one each epoch, and from anywhere."""

from hypothesis import given
from hypothesis import strategies as st

from dropkey.data.order import EpochOrder


@given(st.integers(1, 50), st.integers(0, 3), st.integers(0, 5))
def test_every_image_once(num_images, seed, epoch):
    order = EpochOrder(num_images, seed)
    order.set_epoch(epoch)
    places = list(order)
    assert sorted(index for _, index in places) == list(range(num_images))
    assert {place[0] for place in places} == {epoch}


@given(st.integers(4, 50), st.integers(2, 4))
def test_ranks_share_without_overlap(num_images, world_size):
    parts = [[index for _, index in EpochOrder(num_images, 0, rank, world_size)] for rank in range(world_size)]
    assert {len(part) for part in parts} == {num_images // world_size}
    assert len(set().union(*parts)) == sum(map(len, parts))


@given(st.integers(0, 20))
def test_start_leaves_out_what_was_seen_in_this_epoch_only(skipped):
    whole, rest = EpochOrder(20, 3), EpochOrder(20, 3)
    whole.set_epoch(2)
    rest.start_at(2, skipped)
    assert list(rest) == list(whole)[skipped:]
    rest.set_epoch(3)
    whole.set_epoch(3)
    assert list(rest) == list(whole)


def test_epochs_and_seeds_differ():
    orders = {tuple(index for _, index in EpochOrder(20, seed)) for seed in range(3)}
    assert len(orders) == 3
    order = EpochOrder(20, 0)
    first = [index for _, index in order]
    order.set_epoch(1)
    assert [index for _, index in order] != first
