"""Trainings by name; every setting not shown is the default in config.py."""

from models.training.config import DCGANConfig, TrainingConfig

PRESETS: dict[str, TrainingConfig] = {
    # The paintings write-up: 64 px, z 200, Adam 2e-4 (0.5, 0.999). 15 s/kimg on 2 CPU cores: it wants a GPU.
    "dcgan-paintings-64": TrainingConfig(),
    # About 1.8 s of CPU time per kimg on one thread: some two minutes on 2 idle cores, twice that on busy ones. Faces
    # with eyes, mouth and fringe; 64 px at width 16 costs 1.7 times as much per kimg and is still noise after 28 kimg.
    "dcgan-demo": TrainingConfig(
        algorithm=DCGANConfig(width=32, learning_rate=3e-4, betas=(0.5, 0.99)),
        resolution=32,
        kimg=72,
        batch=16,
        ema_half_life_kimg=8,
        ema_ramp_up=0.12,
        tick_kimg=3,
        grid_ticks=2,
        snapshot_ticks=8,
    ),
}
