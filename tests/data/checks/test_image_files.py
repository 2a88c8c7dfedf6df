import pytest
from PIL import Image

from lit_dense.data.checks.image_files import check_images
from lit_dense.data.formats.coco import read_coco
from lit_dense.data.problems import Problems
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2):
        write_image(tmp_path / "images" / f"{number}.png", seed=number)
    return tmp_path / "images"


@pytest.fixture
def check(folder, tmp_path):
    def run(*images):
        problems = Problems()
        content = read_coco(write_json(tmp_path / "a.json", images, [box_entry(1, 1)]), problems)
        return check_images(content, folder, problems)[0], problems

    return run


def test_check_images__a_missing_file_is_reported_with_the_path_that_was_tried(check, folder):
    _, problems = check(image_entry(1, file_name="1.PNG"), image_entry(2, file_name="sub/none.png"))
    (problem,) = problems.found
    assert problem.what == "missing image files"
    assert problem.examples == (
        f"image 1 (1.PNG); annotations dropped with it: 1; looked for {folder}/1.PNG; there is {folder}/1.png",
        f"image 2 (sub/none.png); looked for {folder}/sub/none.png",
    )
    assert f"relative to the image folder, {folder}" in problem.cure


def test_check_images__backslashes_and_a_doubled_folder_are_read_and_reported(check):
    images, problems = check(image_entry(1, file_name="images\\1.png"), image_entry(2, file_name="images/2.png"))
    assert [image.file_name for image in images] == ["1.png", "2.png"]
    (problem,) = problems.found
    assert problem.repair == "read as names in the image folder"
    assert problem.examples[0] == "image 1 (images\\1.png): read as 1.png"
    assert "with slashes and relative to the image folder" in problem.cure


def test_check_images__absolute_names_inside_the_folder_are_read(check, folder):
    images, problems = check(image_entry(1, file_name=f"{folder}/1.png"))
    assert [image.file_name for image in images] == ["1.png"]
    assert not problems.found


def test_check_images__absolute_names_elsewhere_are_reported_with_the_folder_that_would_do(check):
    _, problems = check(image_entry(1), image_entry(2, file_name="/data/pics/2.png"))
    assert "give /data/pics as the image folder" in problems.found[0].cure


def test_check_images__an_image_with_several_entries(check):
    images, problems = check(image_entry(1), image_entry(5, file_name="./1.png"), image_entry(2))
    assert len(images) == 3
    (problem,) = problems.found
    assert (problem.what, problem.repair) == ("images with several entries", "left as they are")
    assert problem.examples == ("1.png: images 1, 5",)


def test_check_images__swapped_sides_are_a_separate_problem(check):
    images, problems = check(image_entry(1, 30, 40), image_entry(2, 80, 60))
    assert [(image.width, image.height) for image in images] == [(40, 30)] * 2
    assert [image.stated for image in images] == [(30, 40), (80, 60)]
    assert [problem.what for problem in problems.found] == [
        "sizes with width and height swapped",
        "sizes that differ from the image file",
    ]
    assert problems.found[0].cure.startswith("swap them in the file")
    assert not problems.found[1].cure


@pytest.mark.filterwarnings("ignore:Image size")
def test_check_images__images_that_pil_warns_of_are_named(check, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    images, problems = check(image_entry(1))
    assert len(images) == 1
    (hint,) = problems.hints
    assert hint.what == "images of more than 1,000 pixels"
    assert hint.examples == ("image 1 (1.png): 40 x 30",)
    assert hint.path.name == "a.json"


def test_check_images__images_that_pil_refuses_are_named_with_the_cure(check, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    _, problems = check(image_entry(1))
    assert problems.found[0].what == "unreadable image files"
    assert "image 1 (1.png)" in problems.found[0].examples[0]
    assert "cut the image into tiles" in problems.found[0].examples[0]


def test_check_images__dark_images_of_12_bits_are_reported(check, folder):
    Image.effect_noise((40, 30), 50).convert("I").point(lambda value: value * 16).convert("I;16").save(folder / "2.png")
    _, problems = check(image_entry(2))
    assert problems.found[0].what.startswith("images of more than 8 bits that become nearly black")


def test_check_images__ids_as_text_are_dropped_with_the_cure(check):
    _, problems = check(image_entry(1), image_entry("2", file_name="2.png"))
    (problem,) = problems.found
    assert problem.what == "images without an integer id or a file name"
    assert "a number without quotation marks" in problem.cure
