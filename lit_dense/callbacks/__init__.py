"""Callbacks for any Lightning trainer."""

from .detection_pictures import DetectionPictures as DetectionPictures
from .evaluation_pictures import EvaluationPictures as EvaluationPictures
from .loss_pictures import LossPictures as LossPictures
from .prediction_writer import PredictionWriter as PredictionWriter
from .swap_loss import SwapLoss as SwapLoss
from .weight_pictures import WeightPictures as WeightPictures
