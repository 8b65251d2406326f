"""What both the vehicle and the workshop need: the contract, frames, classes, encodings and messages."""
