// The attention of attention.glsl with K and V by their addresses, for drivers that gather what lanes load so.
// target: vulkan1.2
#version 450
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_EXT_buffer_reference : require
#extension GL_GOOGLE_include_directive : require
#define WIDE
#define ADDRESSED
#include "attention.glsl"
