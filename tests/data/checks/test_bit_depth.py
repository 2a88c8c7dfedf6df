import numpy as np
import pytest
from PIL import Image

from lit_dense.data.checks import bit_depth
from lit_dense.data.checks.bit_depth import note_depths
from lit_dense.data.problems import Problems

RAMP = np.linspace(0, 1, 300).reshape(15, 20)


def told(tmp_path, *pictures):
    paths = []
    for number, values in enumerate(pictures):
        paths.append(tmp_path / f"{number}.tif")
        Image.fromarray(values).save(paths[-1])
    problems = Problems()
    note_depths(paths, "a.json", problems)
    return problems.found


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_note_depths__sensor_values_kept_in_16_bits(tmp_path, bits):
    dark = (RAMP * (2**bits - 1)).astype(np.uint16)
    (problem,) = told(tmp_path, dark // 2, dark)
    assert f"look like {bits} bits stored in 16: multiply the values by {2 ** (16 - bits)}" in problem.cure
    assert problem.examples[1] == f"{tmp_path}/1.tif: its largest value becomes {round((2**bits - 1) / 257)} of 255"


def test_note_depths__one_bright_image_is_enough(tmp_path):
    dark, bright = (RAMP * 4095).astype(np.uint16), (RAMP * 40000).astype(np.uint16)
    assert not told(tmp_path, dark, bright, dark)
    assert not told(tmp_path)


def test_note_depths__floats_with_different_ranges(tmp_path):
    (problem,) = told(tmp_path, RAMP.astype(np.float32), (RAMP * 3).astype(np.float32))
    assert problem.what.startswith("images of 32 bits that are scaled differently")
    assert (problem.path, problem.cure) == ("a.json", "save them as 8 bits, all with one range")
    assert problem.examples == (f"{tmp_path}/0.tif: 1 becomes 255", f"{tmp_path}/1.tif: 255 becomes 255")
    assert not told(tmp_path, RAMP.astype(np.float32), (RAMP * 0.3).astype(np.float32))


def test_note_depths__looks_at_a_few_images_and_passes_over_damaged_ones(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(100)]
    read = []
    monkeypatch.setattr(bit_depth, "read_image", lambda path: read.append(path) or depth_error())

    def depth_error():
        raise bit_depth.DataError("damaged")

    problems = Problems()
    note_depths(paths, "a.json", problems)
    assert 4 <= len(read) <= bit_depth.LOOKED_AT
    assert not problems.found
