"""Recipes: every file lies over every data configuration, and holds the numbers of its authors' code."""

import re

import pytest
import yaml

from lit_dense.augmentations import AUGMENTATIONS
from lit_dense.compare.configuration import read_configuration
from lit_dense.criterion import Criterion
from lit_dense.detectors.retinanet.network import build_retinanet
from lit_dense.normalizers import NORMALIZERS
from lit_dense.samplers import SAMPLERS
from tests.builders.project_files import CONFIGS, RECIPES
from tests.builders.samples import images_with

OVER = sorted(CONFIGS.glob("*.yaml"))

SGD = {"optimizer": "sgd", "weight_decay": 1e-4, "backbone_lr_factor": 1.0}
ONE_TIMES = {"schedule": "multistep", "milestones": [0.66667, 0.91667], "warmup_steps": 500}
FOCAL = {"class_path": "focal", "init_args": {"alpha": 0.25, "gamma": 2.0}}
ATSS = {"class_path": "atss", "init_args": {"number": 9}}
MAX_IOU = {"class_path": "max_iou", "init_args": {"positive": 0.5, "negative": 0.4, "allow_low_quality": True}}
HELD = {
    # mmdetection, configs/gfl/gfl_r50_fpn_1x_coco.py
    "qfl": {
        **{**SGD, **ONE_TIMES, "lr": 0.01, "loss": "qfl", "box_loss": "giou", "loss_weight": 1.0},
        **{"box_loss_weight": 2.0, "normalizer": "batch", "assigner": ATSS, "prior": 0.01, "clip": None},
    },
    # VarifocalNet, configs/vfnet/vfl_atss_r50_fpn_1x_coco.py
    "vfl": {
        **{**SGD, **ONE_TIMES, "lr": 0.01, "loss": "vfl", "box_loss": "giou", "loss_weight": 1.0},
        **{"box_loss_weight": 2.0, "normalizer": "batch", "assigner": ATSS, "prior": 0.01, "clip": None},
    },
    # EOD, configs/det/efl/efl_improved_baseline_r50_2x_rfs.yaml: lr is 0.00125 for each image
    "efl": {
        **{**SGD, **ONE_TIMES, "warmup_steps": 6300, "lr": 0.00125 * 16, "box_loss": "giou", "loss_weight": 1.0},
        "loss": {"class_path": "efl", "init_args": {"alpha": 0.25, "gamma": 2.0, "scale": 8.0}},
        **{"box_loss_weight": 1.0, "normalizer": "batch", "assigner": ATSS, "prior": 0.001, "clip": 35.0},
    },
    # NoisyAnchor, configs/COCO-Detection-NoisyAnchor/retinanet_R_50_FPN_1x_noisyanchor.yaml: 8 images, 180,000 steps
    "cleanliness": {
        **{**SGD, "lr": 0.005, "schedule": "multistep", "milestones": [0.66667, 0.88889], "warmup_steps": 1000},
        "loss": {"class_path": "focal", "init_args": {"alpha": 0.5, "gamma": 2.0}},
        "box_loss": {"class_path": "smooth_l1", "init_args": {"beta": 0.1}},
        "normalizer": {"class_path": "ema", "init_args": {"momentum": 0.9, "initial": 400.0}},
        "weighters": [{"class_path": "cleanliness", "init_args": {"candidates": 30, "alpha": 0.75}}],
        **{"loss_weight": 1.0, "box_loss_weight": 1.0, "assigner": None, "prior": 0.01, "clip": None},
    },
    # DW, configs/dw_r50_fpn_1x_coco.py and dw_head.py: 8 processes with 2 images each
    "dw": {
        **{**SGD, **ONE_TIMES, "lr": 0.01, "warmup_steps": 1000, "loss_weight": 1.0, "box_loss_weight": 1.25},
        "loss": {"class_path": "asl", "init_args": {"gamma_pos": 0.0, "gamma_neg": 2.0, "margin": 0.0}},
        "weighters": [{"class_path": "dw", "init_args": {"pos_weight": 0.25}}],
        **{"box_loss": "giou", "normalizer": None, "assigner": None, "prior": 0.02, "clip": None},
    },
    # mmdetection, configs/pisa/pisa_retinanet_r50_fpn_1x_coco.py
    "pisa": {
        **{**SGD, **ONE_TIMES, "lr": 0.01, "loss": FOCAL},
        "box_loss": {"class_path": "smooth_l1", "init_args": {"beta": 0.11}},
        "weighters": [
            {
                "class_path": "pisa",
                "init_args": {"gamma": 2.0, "beta": 0.0, "carl": 1.0, "carl_gamma": 1.0, "carl_beta": 0.2},
            }
        ],
        **{"loss_weight": 1.0, "box_loss_weight": 1.0, "normalizer": "batch", "assigner": MAX_IOU},
        **{"prior": 0.01, "clip": None},
    },
    # sample-weighting-network, configs/Retina_R50.py
    "swn": {
        **{**ONE_TIMES, "loss": FOCAL},
        "box_loss": {"class_path": "smooth_l1", "init_args": {"beta": 0.11}},
        "weighters": [
            {
                "class_path": "swn",
                "init_args": {
                    **{"classification": "mean", "detach_features": False, "regularizer": 0.5, "limit": 2.0},
                    **{"lr": 1e-3, "weight_decay": 1e-4},
                },
            }
        ],
        **{"loss_weight": 1.0, "box_loss_weight": 1.0, "normalizer": "batch", "assigner": MAX_IOU},
        **{"prior": 0.01, "clip": 35.0},
    },
}


PARTS = ("loss", "box_loss", "weighters", "normalizer", "assigner", "loss_weight", "box_loss_weight")


def contains(found, said):
    """Whether a spec has all that another says; it may say more, such as a default."""
    if isinstance(said, dict):
        return all(contains(found[name], value) for name, value in said.items())
    if isinstance(said, list):
        return len(said) == len(found) and all(map(contains, found, said))
    return found == said


def content(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", HELD)
def test_recipes__hold_the_numbers_of_their_authors_code(name):
    said = content(CONFIGS / "recipes" / f"{name}.yaml")
    assert {**said["model"], "clip": said["trainer"]["gradient_clip_val"]} == HELD[name]
    assert set(said) == {"model", "trainer"}
    assert set(said["trainer"]) == {"gradient_clip_val"}


def test_lvis_recipe__holds_the_numbers_of_the_losses_authors():
    said = content(CONFIGS / "lvis.yaml")
    model, held = said["model"], HELD["efl"]
    alike = set(held) - {"loss", "prior", "loss_weight", "backbone_lr_factor", "clip"}  # the rest has these defaults
    assert {name: model[name] for name in alike} == {name: held[name] for name in alike}
    assert (model["loss"], model.get("prior"), model["backbone"]) == ("efl", None, "resnet50")
    assert model["anchor_sizes"] == [[6 * stride, 8 * stride] for stride in (8, 16, 32, 64, 128)]
    assert model["aspect_ratios"] == [1.0]
    assert said["trainer"]["max_epochs"] == 24
    assert said["trainer"]["gradient_clip_val"] == held["clip"]
    assert said["data"]["batch_size"] * said["trainer"]["devices"] == 16
    assert said["data"]["sampler"] == {"class_path": "repeat_factor", "init_args": {"threshold": 0.001}}
    options = {name: model[name] for name in ("backbone", "anchor_sizes", "aspect_ratios")}
    network = build_retinanet(2, **options)  # as many lists as the pyramid has levels
    assert network.anchor_generator.num_anchors_per_location() == [2] * 5


@pytest.mark.parametrize("name", HELD)
def test_recipes__a_header_says_what_is_held_and_what_is_not(name):
    recipe = CONFIGS / "recipes" / f"{name}.yaml"
    header = " ".join(line.lstrip("# ") for line in recipe.read_text().split("\nmodel:")[0].splitlines())
    said = content(recipe)
    assert f"--config my.yaml --config configs/recipes/{name}.yaml" in header
    assert "Reproduced, from" in header
    assert "Not reproduced." in header
    if "lr" in said["model"]:  # a learning rate belongs to a number of images
        assert re.search(r"for (8|16) images in a step", header)
    assert "max_epochs" in header


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("over", OVER, ids=lambda path: path.stem)
def test_recipes__lie_over_every_data_configuration(recipe, over):
    here = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]
    read = read_configuration([f"--config={over}", f"--config={recipe}", *here], "it")
    said, model = content(recipe), read["model"]
    chosen = said.get("model", {})
    asked = {name: value for name, value in chosen.items() if name in PARTS}
    wanted, found = Criterion(**asked).spec, Criterion(**{name: model[name] for name in PARTS}).spec
    for name in asked:
        assert contains(found[name], wanted[name]), name
    others = {name: value for name, value in chosen.items() if name not in PARTS}
    assert {name: model[name] for name in others} == others
    options = said.get("trainer", {})
    assert {name: read["trainer"][name] for name in options} == options
    for name, value in said.get("data", {}).items():
        registry = {"sampler": SAMPLERS, "augmentation": AUGMENTATIONS}[name]
        assert contains(registry.named(read["data"][name]), value), name
    below = content(over)
    assert model["backbone"] == below["model"]["backbone"]
    assert model["anchor_sizes"] == below["model"].get("anchor_sizes")
    assert read["trainer"]["max_epochs"] == below["trainer"]["max_epochs"]


def test_cleanliness_recipe__divides_8_images_as_four_of_its_authors_processes_do():
    recipe = content(CONFIGS / "recipes" / "cleanliness.yaml")
    (divisor,) = set(NORMALIZERS.build(recipe["model"]["normalizer"])(images_with([1.0] * 8, [3] * 8)).tolist())
    authors = 0.9 * 100 + 0.1 * 6  # two images on a process; DDP's mean over four of these is a sum over 8 images
    assert divisor == pytest.approx(4 * authors)
