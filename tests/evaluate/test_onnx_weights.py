import pytest
import timm
import tiny_networks
import torch

from rl3d.evaluate.onnx_weights import read_graph, vision_transformer


def test_a_transformer_comes_back_from_its_export():
    model = tiny_networks.eyes()
    found = vision_transformer(read_graph(tiny_networks.onnx_bytes(model.state_dict())))
    assert found.keys() == model.state_dict().keys()
    again = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **tiny_networks.EYES).eval()
    again.load_state_dict(found)
    pixels = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        assert torch.equal(again(pixels), model(pixels))


def test_what_is_equal_is_stored_once_and_has_both_names():
    token = torch.randn(1, 1, 4)
    alias = tiny_networks.field(1, tiny_networks.node("Identity", ["model.cls_token"], "onnx::Concat_7"))
    stored = tiny_networks.field(5, tiny_networks.tensor("model.cls_token", token))
    assert torch.equal(read_graph(tiny_networks.field(7, alias + stored)).tensors["onnx::Concat_7"], token)


def test_tensors_of_other_types_are_passed_over():
    numbers = (
        tiny_networks.field(1, 2) + tiny_networks.field(2, 7) + tiny_networks.field(8, "n") + tiny_networks.field(9, b"1" * 16)
    )
    assert read_graph(tiny_networks.field(7, tiny_networks.field(5, numbers))).tensors == {}


@pytest.mark.parametrize("cut", [slice(0, 2000), slice(0, 0), slice(1, None)])
def test_broken_files_are_refused(cut):
    whole = tiny_networks.onnx_bytes(tiny_networks.eyes().state_dict())
    with pytest.raises(ValueError, match="no ONNX file"):
        read_graph(whole[cut])


def test_other_networks_are_refused():
    weights = {name: x for name, x in tiny_networks.eyes().state_dict().items() if name != "pos_embed"}
    with pytest.raises(ValueError, match="no vision transformer"):
        vision_transformer(read_graph(tiny_networks.onnx_bytes(weights)))
