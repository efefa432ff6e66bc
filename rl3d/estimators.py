"""From rewards to what a policy gradient is weighted with: advantages, ratios, and the statistics that they rest on.

All statistics are taken over values that are valid, and over each sample once: never over copies per view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rl3d.types import Prompt, Score


class Advantages(NamedTuple):
    """How much better than expected samples were."""

    value: Float[Tensor, "b"]
    """0 where not used."""
    used: Bool[Tensor, "b"]
    """False where a judgement was not had, or where nothing can be learned because the whole group got the same."""


def groups_of(prompts: Sequence[Prompt]) -> Int[Tensor, "b"]:
    """Number prompts by first appearance: samples of equal prompts form a group."""
    numbers: dict[Prompt, int] = {}
    return torch.tensor([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])


def valid_in_all(scores: Mapping[str, Score]) -> Bool[Tensor, "b"]:
    """Where every reward could judge, and judged with a finite number."""
    return torch.stack([score.valid & score.value.isfinite() for score in scores.values()]).all(0)


def total(scores: Mapping[str, Score], weights: Mapping[str, float] | None = None) -> Score:
    """The weighted sum of rewards, differentiable; weights are 1 unless given."""
    used = valid_in_all(scores)
    value = torch.stack([weight_of(name, weights) * score.value for name, score in scores.items()]).sum(0)
    return Score(torch.where(used, value, torch.zeros_like(value)), None, used)


def weight_of(name: str, weights: Mapping[str, float] | None) -> float:
    """The weight of a reward: 1 unless given."""
    return 1.0 if weights is None else weights.get(name, 1.0)


class Statistics(NamedTuple):
    """Of each sample's group."""

    count: Float[Tensor, "b"]
    mean: Float[Tensor, "b"]
    std: Float[Tensor, "b"]
    """Of the population, not of a larger one that it stands for."""


def group_statistics(value: Float[Tensor, "b"], used: Bool[Tensor, "b"], groups: Int[Tensor, "b"]) -> Statistics:
    """Count, mean and standard deviation of the used values in each sample's group, in float64; 0 where there are none."""
    same = (groups[:, None] == groups[None]) & used[None]
    weight = same.double()
    x = torch.where(used, value, torch.zeros_like(value)).double()
    count = weight.sum(1)
    mean = weight @ x / count.clamp_min(1)
    variance = (weight * (x[None] - mean[:, None]).square()).sum(1) / count.clamp_min(1)
    return Statistics(count.float(), mean.to(value.dtype), variance.sqrt().to(value.dtype))


def advantages(
    scores: Mapping[str, Score],
    groups: Int[Tensor, "b"],
    *,
    weights: Mapping[str, float] | None = None,
    baseline: Literal["group", "leave_one_out"] = "group",
    spread: Literal["group", "batch", "none"] = "group",
    clip: float | None = 5.0,
    least: float = 1e-6,
) -> Advantages:
    """Compare each sample with its group, reward by reward, and sum: A = sum_k w_k (R_k - baseline_k) / spread_k, clipped.

    Summing after normalisation keeps the reward with the largest variance from drowning the others. ``spread`` is what each
    reward is divided by: the deviation in its group (Shao et al. 2024, "DeepSeekMath", sec. 4.1.2), that of the deviations from
    the baselines over the whole batch (so groups keep their weight; Flow-GRPO's code takes that of the batch's rewards, where
    prompts' own levels count, too), or nothing, for those whose optimum depends on the scale of the reward.
    ``baseline="leave_one_out"`` leaves a sample out of its own mean, which makes the gradient unbiased. Samples that a reward
    could not judge count nowhere; groups in which no reward varies by more than ``least`` are dropped, since they would add
    noise only. Equivariant to the order of samples, up to rounding.
    """
    if clip is not None and clip <= 0:
        raise ValueError(f"advantages are clipped to [-clip, clip]; got clip {clip}; take a positive one or None")
    used = valid_in_all(scores)
    where, groups = used.device, groups.cpu()
    value = torch.zeros(len(groups))
    varied = torch.zeros(len(groups), dtype=torch.bool)
    for name, score in scores.items():
        reward = score.value.detach().float().cpu()
        one = group_statistics(reward, used.cpu(), groups)
        varies = (one.std > least) & used.cpu()
        off = torch.where(varies, reward - one.mean, torch.zeros_like(reward))
        scale = torch.ones_like(off)
        if spread == "group":
            scale = one.std.clamp_min(least)
        elif spread == "batch" and varies.any():
            scale = off[varies].square().mean().sqrt().clamp_min(least).expand_as(off)
        if baseline == "leave_one_out":
            off = off * one.count / (one.count - 1).clamp_min(1)
        value = value + weight_of(name, weights) * off / scale
        if weight_of(name, weights) != 0:
            varied |= varies
    value = value if clip is None else value.clamp(-clip, clip)
    return Advantages(value.to(where), varied.to(where))


class PromptStatistics(nn.Module):
    """Running mean and deviation of each reward of each prompt, over batches: the tracker of DDPO (Black et al. 2023).

    A prompt that has fewer than ``least`` remembered values is compared with the batch. All state is in ``state_dict``.
    """

    def __init__(self, size: int = 32, least: int = 16):
        super().__init__()
        self.size, self.least = size, least
        self.remembered: dict[str, list[float]] = {}
        """By reward and prompt."""

    def advantages(
        self,
        scores: Mapping[str, Score],
        prompts: Sequence[Prompt],
        *,
        weights: Mapping[str, float] | None = None,
        clip: float | None = 5.0,
    ) -> Advantages:
        """Compare with what is remembered and this batch, reward by reward, and sum. Changes nothing: :meth:`remember` does."""
        used, fresh = valid_in_all(scores).cpu(), self._with(scores, prompts)
        value, varied = torch.zeros(len(prompts)), torch.zeros(len(prompts), dtype=torch.bool)
        for name, score in scores.items():
            reward, weight = score.value.detach().float().cpu(), weight_of(name, weights)
            for i, prompt in enumerate(prompts):
                known = torch.tensor(fresh.get(_key(name, prompt), []))
                sample = known if len(known) >= self.least else reward[used]
                if weight and used[i] and sample.std(correction=0) > 1e-6:
                    value[i] += weight * (reward[i] - sample.mean()) / sample.std(correction=0)
                    varied[i] = True
        where = next(iter(scores.values())).value.device
        return Advantages((value if clip is None else value.clamp(-clip, clip)).to(where), varied.to(where))

    def remember(self, scores: Mapping[str, Score], prompts: Sequence[Prompt]) -> None:
        """Add a batch; the oldest values of a prompt beyond ``size`` are forgotten."""
        self.remembered = self._with(scores, prompts)

    def _with(self, scores: Mapping[str, Score], prompts: Sequence[Prompt]) -> dict[str, list[float]]:
        more, used = {key: list(values) for key, values in self.remembered.items()}, valid_in_all(scores).tolist()
        for name, score in scores.items():
            for x, good, prompt in zip(score.value.tolist(), used, prompts, strict=True):
                if good:
                    key = _key(name, prompt)
                    more[key] = [*more.get(key, []), x][-self.size :]
        return more

    def get_extra_state(self) -> Tensor:
        """What is remembered, as bytes of JSON: a tensor, so that any checkpoint holds it."""
        return torch.frombuffer(bytearray(json.dumps(self.remembered).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self.remembered = json.loads(bytes(state.tolist()).decode())


def _key(reward: str, prompt: Prompt) -> str:
    return "\n".join((reward, *prompt.plain().values()))


def clipped_surrogate(
    log_prob: Float[Tensor, "b"], old: Float[Tensor, "b"], advantage: Float[Tensor, "b"], clip: float | None
) -> Float[Tensor, "b"]:
    """The loss -min(A r, A clip(r, 1 - clip, 1 + clip)) with r = exp(log_prob - old): Schulman et al. 2017, "PPO", eq. 7.

    Without a clip it is -A r. At r = 1 its gradient is that of REINFORCE, -A grad log_prob. The right size of the clip depends
    on how log-probabilities were reduced: means over many elements differ little.
    """
    ratio = (log_prob - old).exp()
    if clip is None:
        return -advantage * ratio
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def mean_used(x: Float[Tensor, "b"], used: Bool[Tensor, "b"]) -> Float[Tensor, ""]:
    """The mean over the samples that count; 0, with a gradient of 0, where none does."""
    return torch.where(used, x, torch.zeros_like(x)).sum() / used.sum().clamp_min(1)


def best_and_worst(score: Score, groups: Int[Tensor, "b"], least: float = 0.0) -> tuple[Int[Tensor, "p"], Int[Tensor, "p"]]:
    """The indices of the best and of the worst valid sample of each group whose rewards differ by more than ``least``."""
    used, winners, losers = valid_in_all({"": score}), [], []
    groups = groups.to(used.device)
    for group in groups.unique(sorted=True).tolist():
        among = ((groups == group) & used).nonzero()[:, 0]
        if not len(among):
            continue
        value = score.value[among]
        best, worst = among[value.argmax()], among[value.argmin()]
        if score.value[best] - score.value[worst] > least:
            winners.append(int(best))
            losers.append(int(worst))
    return torch.tensor(winners, dtype=torch.long), torch.tensor(losers, dtype=torch.long)


def score_function(
    score: Score,
    noise: Float[Tensor, "k d"],
    sigma: float,
    *,
    antithetic: bool = False,
    surrogate: tuple[Float[Tensor, "k"], Float[Tensor, "k d"]] | None = None,
    trust: float = 1.0,
) -> Float[Tensor, "d"]:
    """Estimate the gradient in m of E[R(m + sigma eps)], eps standard normal, at m = 0: evolution strategies.

    Without pairs: the mean of (R_k - b_k) eps_k / sigma with b_k the mean of the other samples, which is unbiased (Kool et al.
    2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"). With ``antithetic``, whose second half is minus the first: the
    mean over pairs of (R+ - R-) eps / (2 sigma) (Salimans et al. 2017, "Evolution Strategies", sec. 2.1); all even parts of R
    cancel.

    A differentiable ``surrogate`` r is a control variate: its gradients are averaged, and the estimate above is of R - r alone.
    The sum is unbiased however bad r is, and less noisy where r is like R, up to a constant.

    Args:
        score: The rewards; samples (and their opposites) that could not be judged count nowhere.
        noise: What was drawn.
        sigma: Of the search.
        antithetic: Whether samples come in pairs.
        surrogate: Its value at each sample, and its gradient in the sample's place.
        trust: A fixed factor on the surrogate, best near the slope of R over r.

    Returns:
        The gradient; 0 where fewer than two samples (or one pair) could be judged.
    """
    used = valid_in_all({"": score})
    value = torch.where(used, score.value.detach(), torch.zeros_like(score.value)).to(noise)
    if surrogate is not None:
        used = used & surrogate[0].isfinite() & surrogate[1].isfinite().all(1)
        value = torch.where(used, value - trust * surrogate[0].to(noise), torch.zeros_like(value))
    if antithetic:
        half = len(value) // 2
        pairs = used[:half] & used[half:]
        used = torch.cat([pairs, pairs])
        weight = torch.where(pairs, value[:half] - value[half:], torch.zeros_like(value[:half])) / 2
        slope = weight @ noise[:half] / (sigma * pairs.sum().clamp_min(1))
    else:
        n = int(used.sum())
        if n < 2:
            return torch.zeros_like(noise[0])
        others = (value[used].sum() - value) / (n - 1)
        slope = torch.where(used, value - others, torch.zeros_like(value)) @ noise / (sigma * n)
    if surrogate is not None and used.any():
        slope = slope + trust * surrogate[1][used].mean(0).to(noise)
    return slope


def bernoulli_score_function(score: Score, kept: Bool[Tensor, "k d"], chance: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
    """Estimate the gradient of E[R(kept)] in the logits of independent coins, ``chance = sigmoid(logits)``.

    REINFORCE with a leave-one-out baseline: the mean of (R_k - b_k) (kept_k - chance), unbiased. 0 where fewer than two samples
    could be judged.
    """
    used = valid_in_all({"": score})
    n = int(used.sum())
    if n < 2:
        return torch.zeros_like(chance)
    value = torch.where(used, score.value.detach(), torch.zeros_like(score.value)).to(chance)
    others = (value[used].sum() - value) / (n - 1)
    return torch.where(used, value - others, torch.zeros_like(value)) @ (kept.to(chance) - chance) / n
