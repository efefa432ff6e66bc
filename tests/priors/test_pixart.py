"""PixArt, on tiny random models: Sigma, and Alpha, which is told of sizes."""

import io
import json
import shutil

import pytest
import torch
from family_checks import ChecksBesideDiffusers, noise
from tiny_families import write_alpha, write_pixart

from rl3d.cameras import Orbit
from rl3d.math import level_at
from rl3d.priors.pretrained import Pretrained
from rl3d.types import Prompt


class TestPixArt(ChecksBesideDiffusers):
    writers = (
        ("pixart", write_pixart),
        ("alpha", write_alpha),
    )

    def test_words_that_are_not_there_do_not_count(self, made):
        prior, x = made.prior, noise(made.prior, 1, 1)
        condition = prior.embed([Prompt("a mug")], Orbit(1).cameras())
        told = condition.wanted
        assert told.mask is not None
        count = int(told.mask.sum())
        assert told.text.shape[2] == {"pixart": 300, "alpha": 120}[made.name] > count > 1
        before = prior.predict(x, level_at(0.5), condition)
        told.text[:, :, count:] += 100
        torch.testing.assert_close(prior.predict(x, level_at(0.5), condition), before)
        told.text[:, :, :count] += 1
        assert not torch.allclose(prior.predict(x, level_at(0.5), condition), before, atol=1e-3)

    def test_alpha_is_told_of_sizes(self, made):
        prior = made.value().build()
        condition, x = prior.embed([Prompt("a mug")], Orbit(1).cameras()), noise(prior, 1, 1)
        before, seen = prior.predict(x, level_at(0.5), condition), []
        forward = prior.net.forward

        def other(*args, added_cond_kwargs, **more):
            seen.append(added_cond_kwargs)
            return forward(*args, added_cond_kwargs=added_cond_kwargs, **more)

        prior.net.forward = other
        torch.testing.assert_close(prior.predict(x, level_at(0.5), condition), before)
        if made.name == "pixart":
            assert seen == [{"resolution": None, "aspect_ratio": None}]
        else:
            assert seen[0]["resolution"].tolist() == [[16, 16]]
            assert seen[0]["aspect_ratio"].tolist() == [[1]]


def test_a_tokenizer_that_is_a_sentencepiece_model_alone_is_read(tmp_path):
    """As PixArt and DeepFloyd-IF publish theirs."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    torch.manual_seed(0)
    write_pixart(tmp_path)
    words, model = ["a red mug", "the quick brown fox jumps over a lazy dog"] * 20, io.BytesIO()
    ends = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(words), model_writer=model, vocab_size=30, **ends)
    shutil.rmtree(tmp_path / "tokenizer")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(model.getvalue())
    about = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(about))
    prior = Pretrained(str(tmp_path), pixels=16, sides=False).build()
    told = prior.embed([Prompt("a red mug")], Orbit(1).cameras()).wanted
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).encode("a red mug")
    assert int(told.mask.sum()) == len(pieces) + 1  # and the end
