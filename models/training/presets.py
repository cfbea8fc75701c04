"""Trainings by name; every setting not shown is the default in config.py."""

from models.training.config import DCGANConfig, TrainingConfig

PRESETS: dict[str, TrainingConfig] = {
    # The paintings write-up: 64 px, z 200, Adam 2e-4 (0.5, 0.999). 15 s/kimg on 2 CPU cores: it wants a GPU.
    "dcgan-paintings-64": TrainingConfig(),
    # Two to three minutes on 2 CPU cores (2.1 to 2.5 s/kimg): recognisable faces, no more. Small steps teach most:
    # in the same time 48 kimg at width 16 look far better than 18 kimg at width 32 and batch 32.
    "dcgan-demo": TrainingConfig(
        algorithm=DCGANConfig(width=16, learning_rate=8e-4),
        kimg=48,
        batch=16,
        ema_half_life_kimg=2,
        tick_kimg=2,
        grid_ticks=2,
        snapshot_ticks=6,
    ),
}
