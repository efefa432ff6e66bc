import pytest
import torch

from rl3d.representations import _hashgrid_numba
from rl3d.representations.hashgrid import HashGrid, row_of


def grid(**settings) -> HashGrid:
    torch.manual_seed(0)
    made = HashGrid(**{"levels": 4, "features": 2, "coarsest": 2, "finest": 24, "table": 512, **settings})
    torch.nn.init.normal_(made.table)
    return made


def points(n: int = 200) -> torch.Tensor:
    inside = torch.rand(n, 3, generator=torch.Generator().manual_seed(1))
    return torch.cat([inside, torch.tensor([[0.0, 0, 0], [1.0, 1, 1], [0.5, 1.0, 0.0]])])


def test_compiled_loops_give_what_torch_gives():
    made, x = grid(), points()
    fast = _hashgrid_numba.lookup(x, made.table, made.cells, made.rows)
    torch.testing.assert_close(fast, made.look_up(x), rtol=1e-5, atol=1e-6)
    upstream = torch.randn(fast.shape, generator=torch.Generator().manual_seed(2))
    (one,) = torch.autograd.grad(fast, made.table, upstream)
    (other,) = torch.autograd.grad(made.look_up(x), made.table, upstream)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_of_points_and_tables_pass_gradcheck():
    made = grid(levels=2, table=64).double()
    x = points(6)[:6].double().requires_grad_()
    table = made.table.detach().requires_grad_()

    def look(x, table):
        return torch.func.functional_call(made, {"table": table}, (x,))

    assert torch.autograd.gradcheck(look, (x, table), eps=1e-7, atol=1e-4)


def test_a_corner_reads_its_own_row_and_between_corners_is_linear():
    made = grid(levels=1, coarsest=4, finest=4)
    corner = torch.tensor([[1, 2, 3]])
    row = int(row_of(corner, 4, made.rows[0]))
    torch.testing.assert_close(made(corner / 4)[0], made.table[row].detach())
    low, high, middle = (made(torch.tensor([[x, 0.5, 0.75]])) for x in (0.25, 0.5, 0.375))
    torch.testing.assert_close(middle, (low + high) / 2)


def test_dense_levels_have_a_row_for_each_corner_and_hashed_ones_use_the_whole_table():
    corners = torch.stack(torch.meshgrid(*[torch.arange(9)] * 3, indexing="ij"), -1).view(-1, 3)
    assert row_of(corners, 8, 9**3).sort().values.equal(torch.arange(9**3))
    hashed = row_of(corners, 8, 256)
    assert (hashed >= 0).all()
    assert len(hashed.unique()) == 256


def test_bytes_do_not_depend_on_the_number_of_threads():
    made, x = grid(), points(3000)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = made(x)
            (gradient,) = torch.autograd.grad(out.square().sum(), made.table)
            found.append((out.detach(), gradient))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("levels", "coarsest", "finest"), [(1, 8, 128), (8, 8, 128), (5, 4, 64)])
def test_levels_grow_geometrically(levels, coarsest, finest):
    cells = HashGrid(levels=levels, coarsest=coarsest, finest=finest).cells
    assert cells[0] == coarsest
    assert levels == 1 or cells[-1] == finest
    assert cells == sorted(cells)


def test_a_table_whose_rows_are_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="power of two rows; got 500"):
        grid(table=500)
