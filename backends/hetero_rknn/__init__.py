"""Rockchip NPUs through RKNN."""
