"""What an asset is measured by, beside rewards: closed forms on views, points and embeddings."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rl3d.types import Views


def silhouette_iou(a: Views, b: Views) -> Float[Tensor, "b"]:
    """Intersection over union of the silhouettes (alpha at least one half), over all views and pixels together, in [0, 1]."""
    x, y = a.alpha >= 0.5, b.alpha >= 0.5
    both, either = (x & y).sum((1, 2, 3, 4)), (x | y).sum((1, 2, 3, 4))
    return both / either.clamp(min=1)


def chamfer(a: Float[Tensor, "n 3"], b: Float[Tensor, "m 3"]) -> float:
    """Mean distance from each point to the nearest of the other set, averaged over both directions, in world units."""
    distances = torch.cdist(a, b)
    return float(distances.amin(0).mean() + distances.amin(1).mean()) / 2


def rank(image: Float[Tensor, "v d"], texts: Float[Tensor, "k d"]) -> int:
    """Place of text 0 among the texts by similarity to the mean of the views' embeddings; 0 is first. Ties count against it."""
    similarity = texts @ torch.nn.functional.normalize(image.mean(0), dim=0)
    return int((similarity[1:] >= similarity[0]).sum())


def spread(features: Float[Tensor, "n d"]) -> float:
    """Mean Euclidean distance between two different rows: the diversity of samples; 0 for fewer than two."""
    return float(torch.pdist(features).mean()) if len(features) > 1 else 0.0


def frechet(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared Frechet distance of normal distributions fitted to two sets of features.

    |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al. 2017). Biased upwards where there are few
    samples, so only sets of one size can be compared. In float64; at least 0.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a distribution needs at least 2 samples, got {len(a)} and {len(b)}")
    x, y = a.double(), b.double()
    one, other = (torch.atleast_2d(torch.cov(z.T)) for z in (x, y))
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # The product of two covariances has the eigenvalues of this symmetric one.
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    distance = (x.mean(0) - y.mean(0)).square().sum() + one.trace() + other.trace() - 2 * cross
    return max(0.0, float(distance))


def kernel_distance(a: Float[Tensor, "n v d"], b: Float[Tensor, "n v d"]) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two sets of objects seen from ``v`` sides, and its standard error.

    The kernel of two features of unit length is (1 + cosine)^3: the kernel inception distance's (Binkowski et al. 2018) for
    features whose length says nothing; that of two objects is its mean over their views. Unbiased for pairs that are drawn
    alike, such as an asset and a true object of the same prompt, since no object meets itself nor its partner (Gretton et al.
    2012, lemma 6, in its form for pairs); so it may be below 0. The error is the jackknife's over pairs, of which there must
    be 3 at least. In float64.
    """
    n = len(a)
    if n < 3:
        raise ValueError(f"a kernel distance and its error need at least 3 pairs, got {n}")

    def kernel(x: Tensor, y: Tensor) -> Float[Tensor, "n n"]:
        return (1 + torch.einsum("ivd,jwd->ijvw", x, y)).pow(3).mean((2, 3))

    x, y = (torch.nn.functional.normalize(z.double(), dim=-1) for z in (a, b))
    cross = kernel(x, y)
    h = (kernel(x, x) + kernel(y, y) - cross - cross.T).fill_diagonal_(0)
    without = (h.sum() - 2 * h.sum(1)) / ((n - 1) * (n - 2))
    error = ((n - 1) * (without - without.mean()).square().mean()).sqrt()
    return float(h.sum() / (n * (n - 1))), float(error)


def identity(views: Float[Tensor, "v d"]) -> float:
    """Mean cosine between the features of two different views of one object: how far they show the same thing, in [-1, 1]."""
    unit = torch.nn.functional.normalize(views, dim=-1)
    v = len(unit)
    return float((unit.sum(0).square().sum() - v) / (v * (v - 1)))


def azimuth_errors_deg(
    views: Float[Tensor, "v d"], reference: Float[Tensor, "i v d"], azimuths_deg: Float[Tensor, "v"]
) -> Float[Tensor, "v"]:
    """How far each view is from where true renders of the same thing look most alike.

    A view's azimuth is read off as that of the most similar reference render, over all instances; the error is its distance
    to the camera's true azimuth, in [0, 180]. An object with a face on every side (Janus) errs on its sides and back.

    Args:
        views: Unit embeddings of the object's views.
        reference: Unit embeddings of ``i`` true objects from the same cameras.
        azimuths_deg: The cameras'.
    """
    similarity = torch.einsum("vd,iwd->vwi", views, reference).amax(-1)
    found = azimuths_deg[similarity.argmax(-1)]
    return ((found - azimuths_deg + 180) % 360 - 180).abs()


def bootstrap_interval(values: Float[Tensor, "n"], *, samples: int = 10_000, level: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean (Efron 1979); give paired differences for a paired one. Seeded."""
    rng = torch.Generator().manual_seed(0)
    index = torch.randint(len(values), (samples, len(values)), generator=rng)
    means = values[index].mean(1)
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail]).to(means)).tolist()
    return low, high


def f_score(a: Float[Tensor, "n 3"], b: Float[Tensor, "m 3"], threshold: float) -> float:
    """The harmonic mean of the shares of each set's points within ``threshold`` of the other (Knapitsch et al. 2017)."""
    distances = torch.cdist(a, b)
    precision, recall = ((distances.amin(dim) <= threshold).float().mean() for dim in (1, 0))
    return float(2 * precision * recall / (precision + recall).clamp(min=1e-12))
