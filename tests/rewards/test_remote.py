from dataclasses import replace

import pytest
import torch
from stub import serving
from world import random_views

from rl3d.rewards.base import Tournament, together
from rl3d.rewards.remote import AskWhich, AskYesNo, Caller, Remote
from rl3d.types import Prompt

P = [Prompt("a red mug")] * 3


@pytest.fixture
def service():
    with serving() as found:
        yield found


def coloured(red, blue):
    views = random_views(1)
    rgb = torch.tensor([red, 0.3, blue]).expand_as(views.rgb)
    return replace(views, rgb=rgb.clone(), alpha=torch.ones_like(views.alpha))


def three():
    return together([coloured(0.9, 0.1), coloured(0.5, 0.5), coloured(0.2, 0.8)]).views


@pytest.mark.parametrize("send", ["png", "safetensors"])
def test_a_service_scores_views(service, send):
    server, url = service
    score = Remote(Caller(url), send=send).score(three(), P)
    assert score.valid.all()
    torch.testing.assert_close(score.value, torch.tensor([0.8, 0.0, -0.6]), atol=0.005, rtol=0)
    assert all(request["prompt"] == {"text": "a red mug", "negative": ""} for request in server.requests)


def test_a_judgement_that_timed_out_is_not_valid(service):
    server, url = service
    server.faults = ["slow"]
    score = Remote(Caller(url, timeout=0.2, retries=0), at_once=1).score(three(), P)
    assert score.valid.tolist() == [False, True, True]
    assert score.value[0].isnan()


@pytest.mark.parametrize("fault", ["slow", "busy", "garbage"])
def test_what_fails_once_is_tried_again(service, fault):
    server, url = service
    server.faults = [fault]
    score = Remote(Caller(url, timeout=0.3, retries=1, pause=0.0), at_once=1).score(three(), P)
    assert score.valid.all()
    assert len(server.requests) == 4


def test_a_refusal_is_the_users_to_mend(service):
    server, url = service
    server.faults = ["refuse"]
    with pytest.raises(ValueError, match="status 400"):
        Remote(Caller(url)).score(coloured(0.9, 0.1), P[:1])
    assert len(server.requests) == 1


def test_null_and_broken_pixels_are_not_valid(service):
    server, url = service
    views = three()
    views.rgb[2, 0, 0, 0] = torch.nan
    score = Remote(Caller(url)).score(views, [Prompt("unknowable"), *P[1:]])
    assert score.valid.tolist() == [False, True, False]
    assert len(server.requests) == 2


def test_nobody_there():
    with serving() as (_, url):
        pass
    score = Remote(Caller(url, timeout=0.5, retries=1, pause=0.0)).score(three(), P)
    assert not score.valid.any()


def test_addresses_and_keys(service, monkeypatch):
    server, url = service
    with pytest.raises(ValueError, match="http"):
        Caller("file:///etc/hosts")
    caller = Caller(url, key_variable="RL3D_TEST_KEY")
    with pytest.raises(ValueError, match="RL3D_TEST_KEY"):
        Remote(caller).score(three(), P)
    monkeypatch.setenv("RL3D_TEST_KEY", "k")
    assert Remote(caller).score(three(), P).valid.all()
    assert server.keys == ["Bearer k"] * 3


def test_yes_or_no_by_likelihood_and_by_word(service):
    server, url = service
    score = AskYesNo(Caller(url), "m").score(three(), P)
    torch.testing.assert_close(score.value, torch.sigmoid(20 * torch.tensor([0.8, 0.0, -0.6])), atol=0.02, rtol=0)
    assert 'show "a red mug"?' in server.requests[0]["messages"][0]["content"][0]["text"]
    server.likelihoods = False
    assert AskYesNo(Caller(url), "m").score(three(), P).value.tolist() == [1.0, 0.0, 0.0]
    assert not AskYesNo(Caller(url), "m").score(three(), [Prompt("unknowable")] * 3).valid.any()


def test_one_of_two_asked_both_ways(service):
    server, url = service
    judge = AskWhich(Caller(url), "m")
    a, b = three(), together([coloured(0.5, 0.5)] * 3).views
    fair = judge.prefer(a, b, P)
    torch.testing.assert_close(fair.value, torch.sigmoid(20 * torch.tensor([0.8, 0.0, -0.6])), atol=0.02, rtol=0)
    server.favours_a = 3.0
    assert float(judge.prefer(b, b, P).value[0]) == pytest.approx(0.5, abs=1e-6)
    torch.testing.assert_close(judge.prefer(b, a, P).value, 1 - judge.prefer(a, b, P).value)
    assert not judge.prefer(a, b, [Prompt("unknowable")] * 3).valid.any()


def test_a_model_that_compares_can_rank(service):
    _, url = service
    score = Tournament(AskWhich(Caller(url), "m")).score(three(), P)
    assert score.value.argsort(descending=True).tolist() == [0, 1, 2]
