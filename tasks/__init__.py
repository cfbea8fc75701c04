"""What a stage does: one file per stage, pure functions first."""
