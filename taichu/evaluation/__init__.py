"""What a trained model can do, in figures on the test split, with chance and a baseline beside."""

from taichu.evaluation.evaluate import EvaluationConfig, evaluate

__all__ = ["EvaluationConfig", "evaluate"]
