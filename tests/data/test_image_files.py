import itertools
import struct

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageOps

from lit_dense.data import DataError
from lit_dense.data.image_files import Header, find_images, read_header, read_headers, read_image, white_level

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def rgb(path):
    image = read_image(path)
    assert image.dtype == torch.uint8
    return image.permute(1, 2, 0).numpy()


NO_YCBCR = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="refused as cut off")


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", pytest.param("YCbCr", marks=NO_YCBCR)]
)
def test_read_image__every_mode_becomes_rgb(tmp_path, mode):
    colours = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)
    image = Image.fromarray(colours).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "PA") else "a.png")
    image.save(path)
    expected = np.asarray(image.convert("RGB"))
    assert (rgb(path) == expected).all()
    assert expected.std() > 20


def test_read_image__alpha_is_dropped_and_colours_stay(tmp_path):
    pixels = np.dstack([RAMP, RAMP, RAMP, np.zeros_like(RAMP)])
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    assert (rgb(tmp_path / "a.png") == pixels[..., :3]).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [0, bytes(range(256))])
def test_read_image__transparent_palettes_keep_their_colours_without_a_warning(tmp_path, transparency):
    image = Image.fromarray(RAMP).convert("P")
    image.save(tmp_path / "a.png", transparency=transparency)
    assert (rgb(tmp_path / "a.png")[..., 0] == RAMP).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_image__sixteen_bits_become_eight_by_their_full_range(tmp_path, suffix):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    assert (rgb(tmp_path / f"a.{suffix}") == RAMP[..., None]).all()


def test_read_image__a_dark_sixteen_bit_image_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 600, np.uint16)).save(tmp_path / "a.png")
    assert (rgb(tmp_path / "a.png") == 2).all()


def test_read_image__big_endian_sixteen_bits(tmp_path):
    Image.frombytes("I;16B", (16, 16), (RAMP.astype(">u2") * 257).tobytes()).save(tmp_path / "a.tif")
    assert (rgb(tmp_path / "a.tif") == RAMP[..., None]).all()


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.int32) * 257,
        RAMP.astype(np.int32) * 8_421_504,
        RAMP / np.float32(255),
        RAMP.astype(np.float32),
        RAMP.astype(np.float32) * 257,
    ],
)
def test_read_image__integers_and_floats_of_32_bits(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert (rgb(tmp_path / "a.tif") == RAMP[..., None]).all()


def test_read_image__nan_is_black(tmp_path):
    values = np.array([[np.nan, np.inf], [-np.inf, -3], [1, 0.5]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert rgb(tmp_path / "a.tif")[..., 0].tolist() == [[0, 0], [0, 0], [255, 128]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image__exif_orientation(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.dstack([RAMP[:8], RAMP[:8], RAMP[8:]])).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert (rgb(path) == expected).all()
    header = read_header(path)
    assert (header.height, header.width) == expected.shape[:2]
    assert header.swapped == (orientation >= 5 and suffix != "tif")
    assert header.turned == (orientation >= 2 and suffix != "tif")
    if suffix != "tif":
        raw = read_image(path, upright=False)
        assert raw.shape == (3, 8, 16)


def test_read_image__damaged_exif_data_is_no_orientation(tmp_path):
    Image.fromarray(RAMP[:8]).save(tmp_path / "a.jpg", exif=b"Exif\0\0XX*\0garbage")
    assert read_header(tmp_path / "a.jpg") == Header(16, 8, False)
    assert read_image(tmp_path / "a.jpg").shape == (3, 8, 16)


def test_read_header__an_orientation_that_exif_does_not_define_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(RAMP[:8]).save(tmp_path / "a.jpg", exif=exif)
    assert read_header(tmp_path / "a.jpg") == Header(16, 8, False)
    assert read_image(tmp_path / "a.jpg").shape == (3, 8, 16)


def test_read_image__a_truncated_image_is_named(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert read_header(path) == Header(64, 64, False)
    with pytest.raises(DataError, match=r"a\.png: .*truncated"):
        read_image(path)
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        read_image(tmp_path / "b.png")


def test_read_header__an_image_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "exceeds limit" in read_header(tmp_path / "a.png")


def test_read_headers__keep_their_order(tmp_path):
    paths = []
    for width in range(1, 40):
        paths.append(tmp_path / f"{width}.png")
        Image.new("L", (width, 5)).save(paths[-1])
    many = paths * 20  # several chunks
    assert [header.width for header in read_headers(many)] == list(range(1, 40)) * 20
    assert read_headers([]) == []


def test_find_images__files_folders_and_globs_are_found(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.tiff", "sub/deep/d.webp", "notes.txt", "raw.dat", "e[1].png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    at = lambda *names: [str(tmp_path / name) for name in names]  # noqa: E731
    assert find_images([tmp_path]) == (at("a.png", "b.JPG", "e[1].png", "sub/c.tiff", "sub/deep/d.webp"), [])
    assert find_images([f"{tmp_path}/*.png"])[0] == at("a.png", "e[1].png")
    assert find_images([f"{tmp_path}/**/*"])[0] == at("a.png", "b.JPG", "e[1].png", "sub/c.tiff", "sub/deep/d.webp")
    assert find_images(at("e[1].png", "raw.dat", "e[1].png"))[0] == at("e[1].png", "raw.dat")
    assert find_images([tmp_path / "sub", tmp_path])[0][:2] == at("sub/c.tiff", "sub/deep/d.webp")
    assert find_images(at("gone.png", "*.bmp", "a.png")) == (at("a.png"), at("gone.png", "*.bmp"))


def test_read_image__floats_may_pass_their_range_a_little(tmp_path):
    Image.fromarray(RAMP / np.float32(255) * np.float32(1.05)).save(tmp_path / "a.tif")
    assert rgb(tmp_path / "a.tif")[..., 0].max() == 255
    assert 120 < rgb(tmp_path / "a.tif")[..., 0].mean() < 140


@pytest.mark.parametrize("mark", [3.4028235e38, -3.4028235e38])
def test_read_image__the_no_data_value_does_not_decide_the_range(tmp_path, mark):
    values = RAMP / np.float32(255)
    values[0, 0] = mark
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert (rgb(tmp_path / "a.tif")[..., 0] == RAMP).all()
    assert white_level(tmp_path / "a.tif") == 1


def test_read_header__reports_more_than_8_bits(tmp_path):
    for name, values in (("a.png", RAMP), ("b.png", RAMP.astype(np.uint16)), ("c.tif", RAMP.astype(np.float32))):
        Image.fromarray(values).save(tmp_path / name)
    assert [read_header(tmp_path / name).deep for name in ("a.png", "b.png", "c.tif")] == [False, True, True]
    assert white_level(tmp_path / "b.png") is None


def tiff(path, values, planar):
    """Writes 16-bit channels as PIL cannot: one after another, or interleaved."""
    height, width, channels = values.shape
    data = (values.transpose(2, 0, 1) if planar == 2 else values).astype("<u2").tobytes()
    strips = channels if planar == 2 else 1
    bits, offsets, counts = 158, 158 + 2 * channels, 158 + 6 * channels
    start = 158 + 10 * channels
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, strips, offsets if strips > 1 else start), (277, 3, 1, channels), (278, 3, 1, height),
        (279, 4, strips, counts if strips > 1 else len(data)), (284, 3, 1, planar), (317, 3, 1, 1), (296, 3, 1, 1),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    size = len(data) // strips
    values = [16] * channels, [start + n * size for n in range(channels)], [size] * channels
    tail = struct.pack(f"<{channels}H{channels}I{channels}I", *itertools.chain(*values))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tail + data)


def test_read_image__planes_of_16_bits_are_refused_for_pil_reads_them_wrongly(tmp_path):
    values = np.dstack([RAMP, RAMP.T, RAMP[::-1]]).astype(np.uint16) * 257
    tiff(tmp_path / "a.tif", values, 1)
    assert (rgb(tmp_path / "a.tif") == values // 257).all()
    assert read_header(tmp_path / "a.tif") == Header(16, 16, False, True)
    tiff(tmp_path / "b.tif", values, 2)
    assert "planes of more than 8 bits" in read_header(tmp_path / "b.tif")
    with pytest.raises(DataError, match=r"b\.tif: .*separate planes of more than 8 bits; save the channels"):
        read_image(tmp_path / "b.tif")


def test_read_header__a_tiff_of_a_kind_that_pil_does_not_know(tmp_path):
    tiff(tmp_path / "a.tif", np.zeros((4, 4, 5), np.uint16), 1)
    assert read_header(tmp_path / "a.tif").startswith(
        "not an image that PIL can open: a TIFF with an unsupported number of channels"
    )


def test_read_image__images_too_large_for_pil_are_refused_with_the_cure(tmp_path, monkeypatch):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"a\.png: .*256 pixels.*: cut the image into tiles, or shrink it\."):
        read_image(tmp_path / "a.png")
    assert "DOS" not in read_header(tmp_path / "a.png")


@pytest.mark.filterwarnings("error")
def test_read_header__a_warning_of_pil_that_is_an_error_is_reported_as_one(tmp_path, monkeypatch):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert "exceeds limit" in read_header(tmp_path / "a.png")


def test_read_header__what_is_no_image_is_named_without_more(tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF87b, or so it says")
    assert read_header(tmp_path / "a.png") == "not an image that PIL can open"
    with pytest.raises(DataError, match=r"a\.png: not an image that PIL can open$"):
        white_level(tmp_path / "a.png")
