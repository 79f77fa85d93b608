"""The command `gencourse train`: many devices, checkpoints. Skip at first reading."""
