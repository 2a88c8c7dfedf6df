"""A checkpoint that predicts in Python: what it takes and returns, and models as folders."""

import json
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torchvision.ops import FrozenBatchNorm2d

import lit_dense
from lit_dense.core.errors import UsageError
from lit_dense.data import DataError
from lit_dense.detectors.backbones import loads_checkpoint
from lit_dense.inference import Prediction, Predictor, hub
from tests.builders.detectors import NUM_CLASSES
from tests.builders.trainers import loader, trainer_in

CATEGORIES = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    module = lit_dense.LitRetinaNet(2, "tiny", fpn_channels=16, min_size=64, max_size=64, score_thresh=0.009)
    module.categories = CATEGORIES
    return module.eval()


@pytest.fixture(scope="module")
def predictor(module):
    return Predictor(module, "cpu")


@pytest.fixture(scope="module")
def checkpoint(module, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def photos(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("b", "a"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels"))


def test_load__gives_the_detections_of_the_module(checkpoint, module, photos, pixels):
    result = lit_dense.load(checkpoint, "cpu").predict(photos / "a.png")
    with torch.inference_mode():
        (expected,) = module([torch.from_numpy(pixels).permute(2, 0, 1)])
    assert len(result) > 0
    assert torch.equal(result.boxes, expected["boxes"])
    assert torch.equal(result.scores, expected["scores"])
    assert set(result.names) <= {"a", "b"}
    assert result.names == ["ab"[label] for label in result.labels]
    assert not result.boxes.requires_grad


def test_predict__takes_a_path_a_pil_image_an_array_and_tensors(predictor, photos, pixels):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    one = predictor.predict(photos / "a.png")
    others = [str(photos / "a.png"), Image.fromarray(pixels), pixels, tensor, tensor.float() / 255]
    for other in others:
        result = predictor.predict(other)
        assert isinstance(result, Prediction)
        assert same(one, result), type(other)
    for many in (others, torch.stack([tensor, tensor]), [pixels]):
        results = predictor.predict(many)
        assert isinstance(results, list)
        assert len(results) == len(many)
        assert all(same(one, result) for result in results)


def test_predict__a_folder_or_a_glob_gives_a_list_in_the_order_of_names(predictor, photos):
    for source in (photos, str(photos), f"{photos}/*.png"):
        assert [result.path.name for result in predictor.predict(source)] == ["a.png", "b.png"]


def test_predict__a_pil_image_is_read_as_its_file_is(predictor, pixels, tmp_path):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        one, other = predictor.predict(turned), predictor.predict(tmp_path / "turned.png")
    assert same(one, other)
    assert one.image.shape == other.image.shape == (3, 64, 48)
    image.convert("L").save(tmp_path / "grey.png")
    assert same(predictor.predict(image.convert("L")), predictor.predict(tmp_path / "grey.png"))


def test_predict__its_threshold_may_be_higher_or_lower_than_the_models(predictor, module, pixels):
    usual = predictor.predict(pixels)
    middle = float(usual.scores.median())
    assert 0 < len(predictor.predict(pixels, score_thresh=middle)) < len(usual)
    assert predictor.predict(pixels, score_thresh=middle).scores.min() >= middle
    assert len(predictor.predict(pixels, score_thresh=1)) == 0
    module.score_thresh = 0.9
    try:
        module.limit_detections()
        assert len(predictor.predict(pixels)) == 0
        assert len(predictor.predict(pixels, score_thresh=middle)) > 0
        assert module.score_thresh == 0.9
    finally:
        module.score_thresh = 0.009
        module.limit_detections()
    assert same(predictor.predict(pixels), usual)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"not an array \[3, 8, 8\] of uint8. It looks like \[3, H, W\]"),
        (np.zeros((8, 8, 3)), r"not an array \[8, 8, 3\] of float64"),
        (np.zeros((8, 8), np.uint8), r"not an array \[8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), r"not an array \[0, 8, 3\]"),
        (torch.zeros(8, 8, 3), r"not a tensor \[8, 8, 3\] of torch.float32. It looks like \[H, W, 3\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "of torch.int64"),
        (5, "not int"),
        ([None], "not NoneType"),
        (b"photo.jpg", "not bytes"),
    ],
)
def test_predict__refuses_other_things(predictor, source, message):
    with pytest.raises(UsageError, match=f"predict takes .*{message}") as error:
        predictor.predict(source)
    assert "\n" not in str(error.value)


def test_predict__a_missing_or_damaged_image_is_named(predictor, photos, tmp_path):
    with pytest.raises(UsageError, match=r"there is no image .*aa.png. Did you mean 'a.png'"):
        predictor.predict(photos / "aa.png")
    with pytest.raises(UsageError, match=r"the folder .* contains no image"):
        predictor.predict(tmp_path)
    (tmp_path / "x.png").write_text("text")
    with pytest.raises(DataError, match=r"x.png: not an image"):
        predictor.predict(tmp_path / "x.png")
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="score_thresh must be in"):
            predictor.predict(photos, threshold)


def test_load__a_missing_file_is_named_with_the_nearest(checkpoint, tmp_path):
    with pytest.raises(UsageError, match=r"there is no checkpoint .*bset.ckpt. Did you mean 'best.ckpt'"):
        lit_dense.load(checkpoint.with_name("bset.ckpt"))
    (tmp_path / "x.ckpt").write_text("{}")
    with pytest.raises(UsageError, match="cannot be read as a checkpoint"):
        lit_dense.load(tmp_path / "x.ckpt")


def test_load__needs_no_pretrained_weights(pixels, tmp_path, monkeypatch):
    """A checkpoint of a pretrained backbone is loaded without the file of its first weights."""

    def download(*args, **kwargs):
        raise OSError("no network")

    torch.manual_seed(0)
    with loads_checkpoint():
        module = lit_dense.LitRetinaNet(2, "mobilenet_v2", weights_backbone="DEFAULT", fpn_channels=16, min_size=64)
    assert isinstance(module.model.backbone.body["0"][1], FrozenBatchNorm2d)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(UsageError, match="cannot be downloaded"):
        lit_dense.LitRetinaNet(2, "mobilenet_v2", weights_backbone="DEFAULT")
    loaded = lit_dense.load(tmp_path / "x.ckpt", "cpu")
    assert same(loaded.predict(pixels), Predictor(module, "cpu").predict(pixels))


def test_predictor__without_class_names_has_numbers(pixels):
    module = lit_dense.LitRetinaNet(2, "tiny", fpn_channels=16, min_size=64, max_size=64)
    assert Predictor(module, "cpu").class_names == ["0", "1"]


# Results


def test_prediction__draws_and_saves(predictor, photos, tmp_path):
    result = predictor.predict(photos / "a.png")
    file = result.save(tmp_path / "new" / "drawn.jpg")
    with Image.open(file) as image:
        assert image.size == result.plot().size == (640, 480)
    assert result.save(tmp_path) == tmp_path / "a.png"
    assert result._repr_png_().startswith(b"\x89PNG")


def test_prediction__draws_detections_of_enough_score(predictor, pixels):
    usual = predictor.predict(pixels)
    assert usual.scores.max() < 0.3
    middle = float(usual.scores.median())
    every = usual.plot(0)
    assert every != usual.plot(middle)
    assert (np.asarray(usual.plot()) == np.asarray(usual.plot(0.3))).all()
    chosen = predictor.predict(pixels, middle)
    assert (np.asarray(chosen.plot()) == np.asarray(usual.plot(middle))).all()


def test_prediction__show_opens_the_drawn_image(predictor, photos, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self, title: shown.append((self.size, title)))
    predictor.predict(photos / "a.png").show()
    assert shown == [((640, 480), "a.png")]


def test_prediction__repr_is_short(predictor, photos, pixels):
    assert repr(predictor.predict(pixels, 1)) == "Prediction(image: 0 detections)"
    assert repr(predictor.predict(photos / "a.png")).endswith(", ...)")


def test_to_dataframe__has_the_columns_of_the_csv(predictor, photos):
    pytest.importorskip("pandas")
    result = predictor.predict(photos / "a.png")
    frame = result.to_dataframe()
    assert list(frame) == ["image_path", "xmin", "ymin", "xmax", "ymax", "label", "score"]
    assert frame["label"].tolist() == result.names
    assert frame["xmax"].tolist() == result.boxes[:, 2].tolist()
    empty = predictor.predict(photos / "a.png", 1).to_dataframe()
    assert empty.shape == (0, 7)


def test_to_supervision__has_boxes_scores_and_names(predictor, pixels):
    pytest.importorskip("supervision")
    result = predictor.predict(pixels)
    detections = result.to_supervision()
    assert detections.xyxy.tolist() == result.boxes.tolist()
    assert detections.class_id.tolist() == result.labels.tolist()
    assert detections.data["class_name"].tolist() == result.names
    assert len(predictor.predict(pixels, 1).to_supervision()) == 0


@pytest.mark.parametrize(("package", "method"), [("pandas", "to_dataframe"), ("supervision", "to_supervision")])
def test_prediction__a_missing_package_is_named(predictor, pixels, monkeypatch, package, method):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"Prediction.{method} needs {package}, which is not installed") as error:
        getattr(predictor.predict(pixels), method)()
    assert "\n" not in str(error.value)


# Folders and the Hub


def test_pretrained__a_folder_gives_the_same_model(predictor, pixels, tmp_path):
    pytest.importorskip("safetensors")
    folder = predictor.save_pretrained(tmp_path / "model")
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again = Predictor.from_pretrained(folder, "cpu")
    assert same(again.predict(pixels), predictor.predict(pixels))
    assert again.class_names == ["a", "b"]
    assert again.module.categories == CATEGORIES


def test_pretrained__of_a_loaded_checkpoint(checkpoint, pixels, tmp_path):
    pytest.importorskip("safetensors")
    loaded = lit_dense.load(checkpoint, "cpu")
    assert same(
        Predictor.from_pretrained(loaded.save_pretrained(tmp_path), "cpu").predict(pixels), loaded.predict(pixels)
    )


def test_from_pretrained__downloads_a_repository(predictor, pixels, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    predictor.save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **o: asked.append((name, o)) or str(tmp_path)
    )
    assert same(
        Predictor.from_pretrained("user/model", "cpu", revision="v1").predict(pixels), predictor.predict(pixels)
    )
    assert asked == [("user/model", {"allow_patterns": ["config.json", "model.safetensors"], "revision": "v1"})]


def test_push_to_hub__uploads_the_folder(predictor, monkeypatch):
    huggingface_hub, mixin = map(pytest.importorskip, ("huggingface_hub", "huggingface_hub.hub_mixin"))
    calls = []

    class Api:
        def __init__(self, token):
            calls.append(token)

        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private, exist_ok))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, repo_id, folder_path, commit_message, **options):
            calls.append((repo_id, sorted(p.name for p in hub.Path(folder_path).iterdir())))
            return type("Commit", (), {"commit_url": "address"})

    monkeypatch.setattr(mixin, "HfApi", Api)
    assert predictor.push_to_hub("user/model", private=True, token="t") == "address"
    files = ["README.md", "config.json", "model.safetensors"]
    assert calls == ["t", ("user/model", True, True), ("user/model", files)]


def test_from_pretrained__what_is_no_model_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no folder /none. Give a folder of save_pretrained"):
        Predictor.from_pretrained("/none")
    with pytest.raises(UsageError, match=r"has no config.json"):
        Predictor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    pytest.importorskip("safetensors")
    with pytest.raises(UsageError, match=r"config.json is that of another library"):
        Predictor.from_pretrained(tmp_path)


@pytest.mark.gpu
def test_load__on_a_gpu_gives_results_on_the_cpu(checkpoint, pixels):
    result = lit_dense.load(checkpoint).predict(pixels)
    assert result.boxes.device.type == "cpu"


def test_predictor__its_results_may_be_changed_in_place(predictor, pixels):
    predictor.predict(pixels).boxes.mul_(2)


class Own(lit_dense.LitRetinaNet):
    """Somebody's class, with another normalisation."""

    def build_model(self, num_classes):
        model = super().build_model(num_classes)
        model.transform.image_mean = [0.0, 0.0, 0.0]
        return model


def fitted(module, folder):
    trainer = trainer_in(folder, max_epochs=1, limit_train_batches=1)
    trainer.fit(module, loader(0))
    return trainer


def small(cls=lit_dense.LitRetinaNet):
    return cls(NUM_CLASSES, "tiny", fpn_channels=16, min_size=64, max_size=64)


def test_load__a_checkpoint_of_another_class_is_told(tmp_path, recwarn):
    path = tmp_path / "own.ckpt"
    fitted(small(Own), tmp_path).save_checkpoint(path)
    recwarn.clear()
    Own.load_from_checkpoint(path, weights_only=True)
    assert not [one for one in recwarn if "class Own" in str(one.message)]
    with pytest.warns(UserWarning, match=r"written by the class Own, and is loaded into LitDetector.*Predictor\(Own"):
        lit_dense.load(path, "cpu")
    fitted(small(), tmp_path).save_checkpoint(tmp_path / "plain.ckpt")
    recwarn.clear()
    Own.load_from_checkpoint(tmp_path / "plain.ckpt", weights_only=True)  # a class may begin from the package's
    assert not [one for one in recwarn if "class" in str(one.message)]


@pytest.mark.parametrize("word", ["retinanet", "ssd"])
def test_predictor__its_module_can_be_trained_further(word, pixels, tmp_path):
    module = lit_dense.LitDetector(word, num_classes=NUM_CLASSES, backbone="tiny", fpn_channels=16, max_size=64)
    Predictor(module, "cpu").predict(pixels)
    weights = next(p for p in module.parameters() if p.requires_grad).detach().clone()
    fitted(module, tmp_path)
    assert module.model.training
    assert not torch.equal(weights, next(p for p in module.parameters() if p.requires_grad))


def test_pretrained__of_a_module_that_was_just_trained(pixels, tmp_path):
    pytest.importorskip("safetensors")
    module = small()
    fitted(module, tmp_path)
    predictor = Predictor(module, "cpu")
    folder = predictor.save_pretrained(tmp_path / "model")
    assert same(Predictor.from_pretrained(folder, "cpu").predict(pixels), predictor.predict(pixels))
