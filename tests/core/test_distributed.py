import pytest
import torch

from lit_dense.core.distributed import Reduce


def _collect(rank):
    reduce = Reduce()
    rows = torch.arange(3 * rank, dtype=torch.int64).reshape(-1, 3)  # the first process holds nothing
    return {
        "sum": reduce.sum(torch.tensor([1.0, rank])),
        "rows": reduce.gather(rows),
        "first": reduce.broadcast(torch.tensor(float(rank + 5))),
        "objects": reduce.gather_objects({"rank": rank}),
        "off": Reduce(enabled=False).sum(torch.tensor(1.0)),
    }


def _loss_of_mean(rank):
    x = torch.tensor([1.0, 2.0, 3.0][rank : rank + 1 + rank], dtype=torch.float64, requires_grad=True)
    total = Reduce().sum_with_grad(torch.stack([x.sum(), x.new_tensor(len(x))]))
    loss = ((x - total[0] / total[1].detach()) ** 3).sum()
    loss.backward()
    return x.grad


@pytest.mark.ddp
def test_reduce__every_process_gets_the_same_sums_and_rows(two_processes):
    for got in two_processes(_collect):
        assert got["sum"].tolist() == [2.0, 1.0]
        assert got["rows"].tolist() == [[0, 1, 2]]
        assert got["first"] == 5.0
        assert got["objects"] == [{"rank": 0}, {"rank": 1}]
        assert got["off"] == 1.0


@pytest.mark.ddp
def test_reduce__gradient_through_the_sum_is_that_of_one_process(two_processes):
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    ((x - x.mean()) ** 3).sum().backward()
    torch.testing.assert_close(torch.cat(two_processes(_loss_of_mean)), x.grad)


def test_reduce__one_process_is_the_identity():
    reduce = Reduce()
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    assert reduce.world_size == 1
    assert reduce.rank == 0
    assert reduce.sum_with_grad(x) is x
    torch.testing.assert_close(reduce.gather(x), x.detach())
    assert reduce.gather_objects("a") == ["a"]


def test_reduce__uses_the_group_that_was_given(monkeypatch):
    group, asked = object(), []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: asked.append(group) or 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda group: asked.append(group) or 1)
    assert (Reduce(group).world_size, Reduce(group).rank, Reduce(group, enabled=False).world_size) == (2, 1, 1)
    assert asked == [group] * 3
