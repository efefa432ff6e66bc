import pytest
import torch
from helpers import sphere_views

from rl3d.cameras import Orbit
from rl3d.evaluate.metrics import (
    azimuth_errors_deg,
    bootstrap_interval,
    chamfer,
    frechet,
    identity,
    kernel_distance,
    rank,
    silhouette_iou,
    spread,
)


def test_iou_of_two_discs_is_the_ratio_of_their_areas():
    cameras = Orbit(views=2, size=256).cameras()
    small, large = sphere_views(cameras, 0.3), sphere_views(cameras, 0.6)
    ratio = float(silhouette_iou(small, large))
    tangent = [(r**2 / (9 - r**2)) for r in (0.3, 0.6)]
    assert abs(ratio - tangent[0] / tangent[1]) < 0.01
    assert float(silhouette_iou(large, large)) == 1


def test_chamfer_of_shifted_points():
    a = torch.tensor([[0.0, 0, 0], [10, 0, 0]])
    assert chamfer(a, a + torch.tensor([0.0, 0.3, 0.4])) == torch.tensor(0.5)
    assert chamfer(a, a[:1]) == 2.5


def test_rank_counts_the_better_and_ties_against():
    texts = torch.eye(3)
    assert rank(torch.tensor([[1.0, 0.1, 0]]), texts) == 0
    assert rank(torch.tensor([[0.5, 0.6, 0.5]]), texts) == 2


def test_a_face_on_every_side_is_found_out():
    azimuths = torch.tensor([0.0, 90, 180, -90])
    reference = torch.eye(4)[None]
    assert azimuth_errors_deg(torch.eye(4), reference, azimuths).tolist() == [0, 0, 0, 0]
    assert azimuth_errors_deg(torch.eye(4)[:1].expand(4, 4), reference, azimuths).tolist() == [0, 90, 180, 90]


def test_the_interval_holds_the_mean_and_narrows():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 1
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    wide = bootstrap_interval(values[:20])
    assert wide[1] - wide[0] > high - low


def test_frechet_of_shifted_and_scaled_normals_is_the_closed_form():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=rng, dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    assert frechet(x, x) < 1e-9
    assert abs(frechet(x, x + 2.0) - 12.0) < 1e-6
    # tr(I + 9 I - 2 * 3 I) = 4 * 3
    assert abs(frechet(x, 3 * x) - 12.0) < 1e-6


def test_spread_is_the_mean_distance_of_pairs():
    assert abs(spread(torch.tensor([[0.0, 0], [3, 4], [0, 0]])) - 10 / 3) < 1e-6
    assert spread(torch.zeros(1, 2)) == 0


def test_the_kernel_distance_is_the_mean_over_pairs_of_pairs():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(5, 2, 3, generator=rng, dtype=torch.float64), dim=-1) for _ in range(2))

    def kernel(x, y):
        return torch.stack([(1 + p @ q) ** 3 for p in x for q in y]).mean()

    def slow(keep):
        h = [
            kernel(a[i], a[j]) + kernel(b[i], b[j]) - kernel(a[i], b[j]) - kernel(a[j], b[i])
            for i in keep
            for j in keep
            if i != j
        ]
        return float(torch.stack(h).mean())

    distance, error = kernel_distance(a, b)
    assert abs(distance - slow(range(5))) < 1e-12
    without = torch.tensor([slow([i for i in range(5) if i != k]) for k in range(5)], dtype=torch.float64)
    assert abs(error - float((4 / 5 * (without - without.mean()).square().sum()).sqrt())) < 1e-12
    assert abs(kernel_distance(a, 7 * a)[0]) < 1e-12  # lengths say nothing
    with pytest.raises(ValueError, match="at least 3 pairs"):
        kernel_distance(a[:2], b[:2])


def test_the_kernel_distance_of_pairs_from_one_distribution_is_zero_on_average():
    rng = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        kind = torch.randn(8, 1, 4, generator=rng)  # partners are alike, and so are an object's views
        a, b = (kind + torch.randn(8, 1, 4, generator=rng) + 0.3 * torch.randn(8, 3, 4, generator=rng) for _ in range(2))
        found.append(kernel_distance(a, b)[0])
    mean, error = torch.tensor(found).mean(), torch.tensor(found).std() / 200**0.5
    assert abs(mean) < 3 * error


def test_identity_is_one_of_the_same_and_none_of_what_has_nothing_in_common():
    assert identity(3 * torch.ones(4, 2)) == pytest.approx(1)
    assert identity(torch.eye(4)) == 0
    assert identity(torch.tensor([[1.0, 0], [2, 0], [0, 1]])) == pytest.approx(1 / 3)
