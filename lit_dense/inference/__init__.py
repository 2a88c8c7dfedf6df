"""Predictions in Python: load a checkpoint, detect objects in images, and convert the results."""

from .prediction import Prediction as Prediction
from .predictor import Predictor as Predictor
from .predictor import load as load
