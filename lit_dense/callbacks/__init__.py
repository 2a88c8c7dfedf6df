"""Callbacks for any Lightning Trainer: plots, predictions, and another loss for an existing module."""

from .detection_plots import DetectionPlots as DetectionPlots
from .evaluation_plots import EvaluationPlots as EvaluationPlots
from .loss_plots import LossPlots as LossPlots
from .prediction_writer import PredictionWriter as PredictionWriter
from .renamed import DetectionPictures as DetectionPictures
from .renamed import EvaluationPictures as EvaluationPictures
from .renamed import LossPictures as LossPictures
from .renamed import WeightPictures as WeightPictures
from .swap_loss import SwapLoss as SwapLoss
from .weight_plots import WeightPlots as WeightPlots
