"""Attention of every query to every valid key, in int8 integers, by online softmax over blocks of 64 keys."""
