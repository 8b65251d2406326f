"""What stays in the workshop: the toolchain, data, evaluation, replay, labels and fleets."""
