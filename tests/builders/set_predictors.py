"""Small set predictors of transformers with random weights."""

import copy

import pytest
import torch

pytest.importorskip("transformers")  # the run for doctests imports this file too

import transformers as hf
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from tests.builders.set_predictor_targets import CLASSES, SIZE, as_fractions

SMALL = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
STAGES = ["stage2", "stage3", "stage4"]
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE, "out_indices": [1, 2]}
TRANSFORMER = {
    "num_labels": CLASSES,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 12,
    "dropout": 0.0,
}


def _of_detr(config, stages=("stage4",), **arguments):
    backbone = hf.ResNetConfig(**SMALL, out_features=list(stages))
    arguments = {"auxiliary_loss": True, **arguments}
    return config(
        **TRANSFORMER | {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None} | arguments,
        backbone_config=backbone,
    )


def detr(**arguments):
    return spread(hf.DetrForObjectDetection(_of_detr(hf.DetrConfig, **arguments)))


def detr_with_masks():
    return hf.DetrForSegmentation(_of_detr(hf.DetrConfig, STAGES, d_model=32, encoder_attention_heads=8))


def conditional_detr():
    return spread(hf.ConditionalDetrForObjectDetection(_of_detr(hf.ConditionalDetrConfig)))


def dab_detr():
    config = _of_detr(hf.DabDetrConfig, hidden_size=16)
    return spread(hf.DabDetrForObjectDetection(config))


def deformable_detr(**arguments):
    config = _of_detr(hf.DeformableDetrConfig, STAGES, num_feature_levels=3, d_model=32, **arguments)
    return spread(hf.DeformableDetrForObjectDetection(config))


def _of_rt_detr(config, channels=(8, 16, 16), denoising=0, **arguments):
    backbone = hf.RTDetrResNetConfig(**SMALL, out_features=STAGES)
    return config(
        **TRANSFORMER
        | {
            "backbone_config": backbone,
            "encoder_hidden_dim": 16,
            "encoder_in_channels": list(channels),
            "feat_strides": [8, 16, 32],
            "decoder_in_channels": [16, 16, 16],
            "num_denoising": denoising,
            "hidden_expansion": 0.5,
            "anchor_image_size": None,
            "decoder_n_points": 2,
        }
        | arguments
    )


def rt_detr(**arguments):
    return spread(hf.RTDetrForObjectDetection(_of_rt_detr(hf.RTDetrConfig, **arguments)))


def rt_detr_denoising():
    return rt_detr(denoising=6)


def rt_detr_v2(**arguments):
    return spread(hf.RTDetrV2ForObjectDetection(_of_rt_detr(hf.RTDetrV2Config, **arguments)))


def rt_detr_v2_denoising():
    return rt_detr_v2(denoising=6)


def d_fine(denoising=0):
    _only_with("DFineConfig")
    backbone = hf.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        stage_light_block=[False] * 4,
        stage_kernel_size=[3] * 4,
        stage_downsample=[False, True, True, True],
        out_features=STAGES,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        embedding_size=8,
    )
    more = {"backbone_config": backbone, "decoder_n_points": [2, 2, 2], "max_num_bins": 8}
    return spread(hf.DFineForObjectDetection(_of_rt_detr(hf.DFineConfig, (16, 16, 16), denoising, **more)))


def d_fine_denoising():
    return d_fine(6)


def _of_lw_detr(config, backbone, **arguments):
    return config(
        backbone_config=backbone,
        num_labels=CLASSES,
        d_model=16,
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        decoder_n_points=2,
        num_queries=8,
        group_detr=3,
        c2f_num_blocks=1,
        dropout=0.0,
        **arguments,
    )


def _only_with(name):
    """Skip the test if this version of transformers does not have the model yet."""
    if not hasattr(hf, name):
        pytest.skip(f"transformers {hf.__version__} has no {name}")


def lw_detr():
    _only_with("LwDetrConfig")
    backbone = hf.LwDetrViTConfig(**VIT, pretrain_image_size=SIZE, num_windows=4, window_block_indices=[0])
    return spread(hf.LwDetrForObjectDetection(_of_lw_detr(hf.LwDetrConfig, backbone, projector_scale_factors=[1.0])))


def rf_detr():
    _only_with("RfDetrConfig")
    backbone = hf.RfDetrDinov2Config(**VIT, patch_size=8, num_windows=2)
    return spread(hf.RfDetrForObjectDetection(_of_lw_detr(hf.RfDetrConfig, backbone)))


def spread(model):
    """The model with class logits and boxes that differ between queries, which training would bring about."""
    for name, parameter in model.named_parameters():
        if "class_embed" in name or "_class" in name or "class_labels_classifier" in name or "score_head" in name:
            nn.init.normal_(parameter, std=0.3)
    for module in list(model.modules()):
        for child, norm in module.named_children():
            if isinstance(norm, nn.BatchNorm2d):  # its gradients explode where a map has a few cells
                setattr(module, child, FrozenBatchNorm2d(norm.num_features))
    return model


def labels_of(targets):
    """Targets as transformers takes them."""
    return [{**as_fractions(target), "class_labels": target["labels"]} for target in targets]


def class_terms(terms):
    """Those of classes, by whatever layer."""
    return [term for name, term in terms.items() if name.startswith(("loss_ce", "loss_vfl"))]


def losses_of(model, images, targets):
    """Terms of a training step: those of classes of all layers, and the rest."""
    output = model(pixel_values=torch.stack(images), labels=labels_of(copy.deepcopy(targets)))
    classes = torch.stack(class_terms(output.loss_dict)).sum()
    return {"classes": classes, "boxes": output.loss - classes}


def detections_of(model, images):
    """All classes of all queries with a score, as post_process_object_detection finds them."""
    output = model(pixel_values=torch.stack(images))
    softmax = output.logits.shape[-1] > model.config.num_labels
    scores = output.logits.softmax(-1)[..., :-1] if softmax else output.logits.sigmoid()
    found = []
    for own, boxes in zip(scores, output.pred_boxes, strict=True):
        query, label = (own > 0.01).nonzero(as_tuple=True)
        found.append({"boxes": boxes[query], "scores": own[query, label], "labels": label})
    return found
