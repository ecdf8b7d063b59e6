// The attention of attention.glsl with 64-bit words, for drivers that load each component by itself.
#version 450
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_GOOGLE_include_directive : require
#define WIDE
#include "attention.glsl"
