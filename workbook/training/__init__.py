"""Everything that is fitted by gradients. The names below are those that saved copies of rfsq_tokenizer.py import."""

from workbook.training.trainer import Job, TrainConfig, TrainData, train

__all__ = ["Job", "TrainConfig", "TrainData", "train"]
