// The product of gemm_subgroup.glsl, for any device that shuffles in subgroups.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "gemm_subgroup.glsl"
