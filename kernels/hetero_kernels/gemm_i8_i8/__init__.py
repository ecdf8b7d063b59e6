"""Products of int8 activations and int8 weights, with a bias, scaled back to int8 channel by channel."""
