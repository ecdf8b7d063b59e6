"""Attention of 64 queries to 64 keys in int8 integers: independent tiles with a temperature each."""
