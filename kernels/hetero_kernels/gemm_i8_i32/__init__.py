"""Products of int8 activations and int8 weights, as they are: int32."""
