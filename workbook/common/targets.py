"""The implementation guide's targets and expectations, declared before any run."""

from __future__ import annotations

from workbook.common.threshold import Threshold

SAME_WITHIN = 0.05  # errors this near to each other count as equal
MSE_BELOW = 0.012
IMPROVEMENT_ABOVE = 0.30
LOW_MSE, IMPROVES = Threshold.below(MSE_BELOW), Threshold.above(IMPROVEMENT_ABOVE)
OVERHEAD_UP_TO = 0.05

EXPECTED_MSE = 0.0101
EXPECTED_NAIVE_MSE = 0.0182
EXPECTED_IMPROVEMENT = 0.445
EXPECTED_TRAINING_HOURS = 3.0
EXPECTED_CHECKPOINT_KB = 50.0
EXPECTED_CURVE = {10: 0.045, 30: 0.018, 50: 0.012, 80: 0.010, 100: 0.010}  # epoch: MSE

COARSE_LAYERS = 3  # L0-L2, what the draft model of Phase 2 predicts
FINE_LAYERS = tuple(range(COARSE_LAYERS, 8))
EXPECTED_NAIVE_STD = {tuple(range(COARSE_LAYERS)): (0.1, 0.5), FINE_LAYERS: (0.001, 0.01)}  # of what enters the layers

# Error of naive and robust, as the guide's comparison page has them.
EXPECTED_ERRORS = {
    "position_mm": (2.3, 1.2),
    "rotation_deg": (3.5, 1.8),
    "gripper_abs": (0.12, 0.06),
    "max_abs": (0.089, 0.045),
}

EXPECTED_COARSE_MSE = (0.010, 0.008)  # of L0-L2, naive and robust
EXPECTED_FINE_MSE = (0.025, 0.012)  # of L3-L7
EXPECTED_TOKEN_ACCURACY = 0.909
EXPECTED_FINE_MANIPULATION = (0.07, 0.10)  # gain in task success
GAINS_SUCCESS = Threshold.at_least(EXPECTED_FINE_MANIPULATION[0])

# Below these a run is no evidence, and says so.
EVIDENCE_EPOCHS = 100
EVIDENCE_SEEDS = 5
EVIDENCE_TEST_EPISODES = 10
EVIDENCE_BASELINE_STEPS = 1000
EVIDENCE_POLICY_STEPS = 1600
EVIDENCE_REPLAY_EPISODES = 20
EVIDENCE_REPLAY_TASKS = 3
EVIDENCE_LOOP_PAIRS = 60
EVIDENCE_LOOP_SEEDS = 3
