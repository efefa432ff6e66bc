import numpy as np
import pytest
from PIL import Image

from rl3d.priors.pictures import read_picture


def test_what_is_cut_out_is_centred_over_gray(tmp_path):
    pixels = np.zeros((50, 100, 4), np.uint8)
    pixels[10:30, 5:45] = (255, 0, 0, 255)  # 40 wide, 20 high
    pixels[10, 5, 3] = 51
    Image.fromarray(pixels, "RGBA").save(tmp_path / "x.png")
    found = read_picture(tmp_path / "x.png")
    assert found.mode == "RGB"
    assert found.size == (50, 50)  # the longer side is 0.8 of it
    shown = np.asarray(found)
    assert (shown[20, 10:20] == (255, 0, 0)).all()
    assert (shown[:15] == 127).all()
    assert (shown[35:] == 127).all()
    assert (shown[:, :5] == 127).all()
    assert (shown[:, 45:] == 127).all()
    np.testing.assert_allclose(shown[15, 5], 0.2 * np.array([255, 0, 0]) + 0.8 * 127, atol=1)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_an_opaque_one_stays_and_is_padded(tmp_path, mode):
    plain = Image.new("RGB", (30, 20), (10, 200, 30))
    (plain.quantize(4) if mode == "P" else plain.convert(mode)).save(tmp_path / "x.png")
    shown = np.asarray(read_picture(tmp_path / "x.png"))
    assert shown.shape == (30, 30, 3)
    assert (shown[:5] == 127).all()
    assert (shown[25:] == 127).all()
    assert (shown[5:25] == shown[5, 0]).all()


def test_a_camera_held_upright_is_not_lost(tmp_path):
    image = Image.new("RGB", (30, 20))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    image.save(tmp_path / "x.png", exif=exif)
    shown = np.asarray(read_picture(tmp_path / "x.png"))
    assert (shown[0, 24] == 255).all()


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="as a picture"):
        read_picture(tmp_path / "x.png")
    Image.new("RGBA", (9, 9)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="wholly transparent"):
        read_picture(tmp_path / "x.png")
    Image.new("RGB", (99, 99), "red").save(tmp_path / "y.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "y.png").read_bytes()[:60])
    with pytest.raises(ValueError, match="as a picture"):
        read_picture(tmp_path / "x.png")
    with pytest.raises(ValueError, match="there is no picture"):
        read_picture(tmp_path / "z.png")
