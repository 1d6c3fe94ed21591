"""Everything that is fitted by gradients. The names below are those that saved copies of rfsq_tokenizer.py import."""

from workbook.training.data import TrainData
from workbook.training.trainer import Job, TrainConfig, train

__all__ = ["Job", "TrainConfig", "TrainData", "train"]
