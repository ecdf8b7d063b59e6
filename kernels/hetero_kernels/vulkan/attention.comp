// The attention of attention.glsl, for any device that shuffles in subgroups.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "attention.glsl"
