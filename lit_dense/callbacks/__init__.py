"""Callbacks for any Lightning trainer."""

from .swap_loss import SwapLoss as SwapLoss
