"""The one training loop for every objective, with averages, checkpoints, resuming and several processes."""
