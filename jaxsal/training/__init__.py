"""Training: a resumable loop, agreement statistics, and how the shipped network was made."""
